"""Writes the tables of docs/quantization.md from benchmarks/quantization.json: `make docs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "quantization.md"
START, END = "<!-- printed by docs/make_quantization.py -->\n", "<!-- end -->\n"


def with_tables(page: str) -> str:
    """The page with the tables between its marks made anew."""
    report = json.loads((ROOT / "benchmarks" / "quantization.json").read_text(encoding="utf-8"))
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return before + START + "\n" + _likeness(report["results"]) + "\n" + _scores(report["results"]) + "\n" + END + after


def _likeness(results: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| scheme | size, MB | error of products | KL, thousandths of a nat | same likeliest word |",
        "|---|---|---|---|---|",
    ]
    for name, found in results.items():
        like = found["likeness"]
        size = f"{found['bytes'] / 1e6:.1f}" if "bytes" in found else ""
        kl, spread = (1000 * number for number in like["kl"])
        share, low, high = like["agreement"]
        error = f"{100 * found['products']:.2f}%"
        lines.append(f"| {name} | {size} | {error} | {kl:.2g} ± {spread:.1g} | {share}% ({low} to {high}) |")
    return "\n".join(lines) + "\n"


def _scores(results: dict[str, dict[str, Any]]) -> str:
    """The benchmark's overall score and those it sets targets for; a difference with its 95% interval."""
    schemes = {name: found["scores"] for name, found in results.items() if "scores" in found}
    first = next(iter(schemes.values()))
    lines = ["| score | questions | before | " + " | ".join(schemes) + " |", "|---" * (3 + len(schemes)) + "|"]
    for name, row in first.items():
        differences = (f"{found[name]['difference']:+.1f} ± {found[name]['within']:.1f}" for found in schemes.values())
        lines.append(f"| {name} | {row['n']} | {row['before']} | " + " | ".join(differences) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
