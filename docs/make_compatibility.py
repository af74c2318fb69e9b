"""Writes docs/compatibility.md from what the tests compare with other implementations: `make compatibility`.

The tests that take the fixture `compared` are run, and what each of them measured goes to
benchmarks/compatibility.json; the page is that file as tables. A test that compares something new has a row of its own
the next time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
RESULTS = ROOT / "benchmarks" / "compatibility.json"
ORACLES = ("transformers", "tokenizers")

# By the first word of a subject: the tables of the page, and what stands over each.
CHAPTERS = {
    "original": "Folders of the original code, read as they are, against the original on the same files. Pickled ones "
    "are opened as `llava import --allow-pickle` does.",
    "llava-hf": "Folders of transformers, and weights of the original in transformers' layout (*converted*).",
    "LLaVA": "Tiny models with random weights, written by transformers and computed by both.",
    "LLaVA-NeXT": "The same with pictures in tiles, of several sizes in a row.",
    "LLaVA-OneVision": "The same with SigLIP towers and pooled tiles.",
    "anyres": "Geometry of tiles, row by row, each implementation in its own column.",
    "template": "Prompts as text.",
    "tokenizer": "Ids of training samples, with tokenizers as their folders hold them.",
    "labels": "Ids and labels of training samples, all but those that the original masks wrongly: which and why, "
    "tests/processing/test_golden_labels.py says. Of ChatML, MPT and v0 it masks none rightly.",
    "training": "A batch of stage 2.",
    "export": "What `llava export` writes, opened by others.",
    "gguf": "What `llava export --to gguf` writes, opened by llama.cpp.",
}


# The order in which a picture and a question go through a model; what is not listed comes behind.
STAGES = ("pixels", "tower features", "projected features", "number of tokens", "ids of the prompt", "logits")


def measure() -> dict[str, Any]:
    """Run the comparisons; raises SystemExit where one fails."""
    from torch import device

    from llavakit.circumstances import circumstances

    told = circumstances(device("cpu"))
    told["versions"] |= {package: version(package) for package in ORACLES}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rows"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-m", "compared", "tests"]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"LLAVAKIT_COMPATIBILITY": str(file)})
        if done.returncode:
            sys.exit("a comparison failed; nothing is written")
        rows = merged(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    return {"rows": rows, **told, "command": "python docs/make_compatibility.py"}


def merged(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each subject, stage and oracle, in the order of the chapters."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = (row["subject"], row["stage"], row["oracle"])
        before = found.get(key)
        if before is not None:
            row |= {"cases": row["cases"] + before["cases"]}
            row |= {name: max(row[name], before[name]) for name in ("tolerance", "relative", "largest") if name in row}
        found[key] = row
    order = list(CHAPTERS)
    return sorted(found.values(), key=lambda row: (order.index(chapter(row)), row["subject"], _place(row["stage"])))


def _place(stage: str) -> tuple[int, str]:
    return STAGES.index(stage) if stage in STAGES else len(STAGES), stage


def chapter(row: dict[str, Any]) -> str:
    """Raises ValueError for a subject that no table is for."""
    word = row["subject"].replace(",", " ").split()[0]
    if word not in CHAPTERS:
        raise ValueError(
            f"{row['test']} compares {row['subject']!r}: its first word should be of {', '.join(CHAPTERS)}"
        )
    return word


def page(results: dict[str, Any]) -> str:
    """The whole page as text."""
    rows, versions = results["rows"], results["versions"]
    told = {**results["machine"], **versions, "commit": _short(results["commit"] or "unknown")}
    lines = [
        "# What was compared with what",
        "",
        "Printed by docs/make_compatibility.py (`make compatibility`) from benchmarks/compatibility.json, which holds "
        f"what the tests measured: {len(rows)} comparisons over {sum(row['cases'] for row in rows):,} cases, on "
        "{cpu} with torch {torch}, transformers {transformers} and tokenizers {tokenizers}, at commit "
        "{commit}.".format(**told),
        "",
        "No published weights were at hand. The checkpoints are tiny, with random weights, in the formats of published "
        "ones to the last file, and beside them lies what the named implementation computed with them. Numbers are "
        "float32 on a CPU unless a row says otherwise: the largest absolute difference found, and the one allowed. "
        "*Equal* means that nothing else is allowed. Where the two public implementations differ from each other, each "
        "folder is compared with the one that wrote it.",
    ]
    for name, part in groupby(rows, key=chapter):
        lines += ["", f"## {name}", "", CHAPTERS[name], ""]
        lines += ["| what | stage | against | cases | largest difference | allowed |", "|---|---|---|---|---|---|"]
        lines += [line(row, name) for row in part]
    return "\n".join(lines) + "\n"


def _short(commit: str) -> str:
    """The beginning of a commit, and whether the code was changed since."""
    name, plus, changed = commit.partition("+")
    return name[:10] + plus + changed


def line(row: dict[str, Any], table: str) -> str:
    what = row["subject"].removeprefix(table).removeprefix(",").strip()
    if "tolerance" in row:
        relative = f" + {row['relative']:.0e} of it" if row["relative"] else ""
        numbers = f"{row['largest']:.1e} | {row['tolerance']:.0e}{relative}"
    else:
        numbers = "equal | "
    return f"| {what} | {row['stage']} | {row['oracle']} | {row['cases']:,} | {numbers} |"


if __name__ == "__main__":
    results = measure()
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")
    print(PAGE.relative_to(ROOT), file=sys.stderr)
