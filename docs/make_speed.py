"""Writes the tables of README.md and docs/speed.md from benchmarks/*.json: `make bench`, or `make docs`.

A table stands between a mark with its name and one that ends it; everything else on these pages is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from llavakit.bench.peers.table import OURS

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "peers.json"
LATENCY = ROOT / "benchmarks" / "latency.json"
AMX = ROOT / "benchmarks" / "peers-amx.json"
AMX_LATENCY = ROOT / "benchmarks" / "latency-amx.json"
THROUGHPUT = {kept: ROOT / "benchmarks" / f"throughput-{kept}.json" for kept in ("float16", "int8")}
GPU = {scheme: ROOT / "benchmarks" / f"gpu-{scheme}.json" for scheme in ("bfloat16", "int8", "int4-g128")}
PAGES = (ROOT / "README.md", ROOT / "docs" / "speed.md")
MARKED = re.compile(r"(<!-- speed: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.S)
JOBS = {
    "encode": "a picture, encoded",
    "prefill": "the prompt about it",
    "second": "a second question",
    "decode": "speaking",
    "together": "{conversations} conversations together",
}


def with_tables(page: str, result: dict[str, Any]) -> str:
    """The page with every table in it made anew; KeyError for a mark that names no table."""
    return MARKED.sub(lambda mark: f"{mark[1]}\n{TABLES[mark['name']](result)}\n\n{mark[3]}", page)


def _table(rows: list[list[str]]) -> str:
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rest))


def _peers(result: dict[str, Any]) -> str:
    """What each takes, and beside the rates their ranges."""
    prompt, figures = result["prompt"], result["figures"]
    made = {
        "prefill": prompt["first"],
        "second": prompt["second"],
        "decode": prompt["spoken"],
        "together": prompt["spoken_together"] * prompt["conversations"],
    }
    rows = [["median [range]", *(f"{name} ({result['about'][name]['weights']})" for name in figures)]]
    for job, spoken in JOBS.items():
        unit = "s" if job in ("encode", "second") else "tokens/s"
        seconds = [figures[name]["seconds"][job] for name in figures]
        told = [_seconds(one) if unit == "s" else _rate(one, made[job]) for one in seconds]
        rows.append([f"{spoken.format(**prompt)}, {unit}", *told])
    rows.append(["to the first word about a picture, s", *(_first_word(one["seconds"]) for one in figures.values())])
    rows.append(["resident memory, GB", *(_gigabytes(one["memory"]) for one in figures.values())])
    rows.append(["loading, s", *(_seconds(one["load_s"]) for one in figures.values())])
    return _table(rows)


def _seconds(figure: dict[str, Any]) -> str:
    low, high = figure["range"]
    return f"{figure['median']:.3g} [{low:.3g}-{high:.3g}]"


def _rate(figure: dict[str, Any], tokens: int) -> str:
    low, high = figure["range"]
    least, middle, most = (_number(tokens / one) for one in (high, figure["median"], low))
    return f"{middle} [{least}-{most}]"


def _number(value: float) -> str:
    """Three digits, and all of them where there are more before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _first_word(seconds: dict[str, dict[str, Any]]) -> str:
    both = zip(seconds["encode"]["rounds"], seconds["prefill"]["rounds"], strict=True)
    sums = [encode + prefill for encode, prefill in both]
    return _seconds({"median": median(sums), "range": [min(sums), max(sums)]})


def _gigabytes(memory: dict[str, int]) -> str:
    return f"{memory['resident'] / 1e9:.2f}" if memory else "-"


def _targets(result: dict[str, Any]) -> str:
    rows = [["", "aimed at", "median [range]", ""]]
    for one in result["targets"]:
        aim = f"at least {one['at_least']:g}" if "at_least" in one else f"at most {one['at_most']:g}"
        rows.append([one["target"], aim, _seconds(one), "reached" if one["reached"] else "**missed**"])
    return _table(rows)


def _milliseconds(result: dict[str, Any]) -> str:
    """Each job of ours beside the least that it could take at the ceilings of the same run."""
    bandwidth = median(one["read_gbps"] for one in result["ceilings"])
    rates = [one["int8_gops"] for one in result["ceilings"] if one["int8_gops"]]
    seconds = result["figures"][OURS]["seconds"]
    rows = [["job", "GB read", "GOP", "limit of memory, ms", "limit of products, ms", "taken, ms", "of the limit"]]
    for job, work in result["work"].items():
        steps = result["prompt"]["spoken"] if job == "decode" else 1
        taken = 1e3 * seconds[job]["median"] / steps
        reading = 1e3 * work["gigabytes"] / bandwidth
        making = 1e3 * work["gigaoperations"] / median(rates) if rates else None
        share = max(reading, making or 0) / taken
        numbers = [f"{work['gigabytes']:.3g}", f"{work['gigaoperations']:,.4g}", f"{reading:,.3g}"]
        numbers += ["-" if making is None else f"{making:,.3g}", f"{taken:,.4g}", f"{share:.0%}"]
        rows.append(["a word" if job == "decode" else JOBS[job], *numbers])
    return _table(rows)


def _parts(latency: dict[str, Any]) -> str:
    """What each part of the language model takes, of a run of `llava bench latency` on its own."""
    parts = latency["parts_ms"]
    jobs = {job: JOBS[job] if job != "decode" else "a word" for job in parts}
    rows = [["ms", *jobs.values()]]
    for name in next(iter(parts.values())):
        rows.append([name, *(f"{parts[job][name]['median']:,.3g}" for job in jobs)])
    return _table(rows)


def _together(result: dict[str, Any]) -> str:
    """Several conversations, by what keys and values are kept as."""
    runs = {kept: _read(path) for kept, path in THROUGHPUT.items()}
    counts = next(iter(runs.values()))["tokens_per_s"]
    rows = [
        ["conversations", *(f"keys and values {kept}, {what}" for kept in runs for what in ("tokens/s", "times one"))]
    ]
    for count in counts:
        told = ((run["tokens_per_s"][count], run["times_1"][count]) for run in runs.values())
        rows.append([count, *(_seconds(one) for pair in told for one in pair)])
    return _table(rows)


def _gpu(result: dict[str, Any]) -> str:
    """Ours in each number format, from runs of their own, and transformers beside the first of them."""
    runs = {scheme: _read(path) for scheme, path in GPU.items()}
    first = next(iter(runs.values()))
    figures = [run["figures"][OURS]["seconds"] for run in runs.values()]
    others = {name: one["seconds"] for name, one in first["figures"].items() if name != OURS}
    heads = [f"{name} ({first['about'][name]['weights']})" for name in others]
    rows = [["median [range]", *(f"{OURS} ({scheme})" for scheme in runs), *heads]]
    for job, spoken, tokens in (
        ("encode", "a picture, encoded, ms", None),
        ("prefill", "the prompt about it, tokens/s", first["prompt"]["first"]),
        ("second", "a second question, ms", None),
        ("decode", "speaking, tokens/s", first["prompt"]["spoken"]),
        ("together", "64 conversations together, tokens/s", 64 * first["prompt"]["spoken_together"]),
    ):
        told = [one[job] for one in (*figures, *others.values())]
        rows.append([spoken, *(_milli(one) if tokens is None else _rate(one, tokens) for one in told)])
    targets = [run["targets"] for run in runs.values()]
    for index, spoken in enumerate(
        ("a word, share of the bandwidth probed", "the prompt, share of the products probed")
    ):
        told = [f"{_seconds(one[index])}, of {one[index]['at_least']:g}" for one in targets]
        rows.append([spoken, *told, *("" for _ in others)])
    return _table(rows)


def _milli(figure: dict[str, Any]) -> str:
    return _seconds({"median": 1e3 * figure["median"], "range": [1e3 * one for one in figure["range"]]})


def _ceilings(result: dict[str, Any]) -> str:
    rows = [["probed in each round", *(str(index + 1) for index in range(len(result["ceilings"])))]]
    for key, spoken in (("read_gbps", "memory read, GB/s"), ("int8_gops", "products of int8, GOP/s")):
        values = [one[key] for one in result["ceilings"]]
        rows.append([spoken, *("-" if value is None else _number(value) for value in values)])
    return _table(rows)


def _circumstances(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], {name: about["version"] for name, about in result["about"].items()}
    others = ", ".join(f"{name} {version}" for name, version in versions.items() if name != OURS)
    notes = [f"{name}: {'; '.join(about['notes'])}." for name, about in result["about"].items() if about.get("notes")]
    return "\n".join(
        [
            f"{result['shapes']} shapes, random weights, a prompt of {result['prompt']['first']} tokens, "
            f"{machine['threads']} threads of {machine['cpu']} ({machine['isa']}), {result['rounds']} rounds by turns; "
            f"torch {result['versions']['torch']}, {others}. Commit `{result['commit']}`, `{result['command']}`.",
            *(f"- {note}" for note in notes),
        ]
    )


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "peers": _peers,
    "targets": _targets,
    "milliseconds": _milliseconds,
    "parts": lambda _: _parts(_read(LATENCY)),
    "amx_circumstances": lambda _: _circumstances(_read(AMX)),
    "amx_peers": lambda _: _peers(_read(AMX)),
    "amx_targets": lambda _: _targets(_read(AMX)),
    "amx_ceilings": lambda _: _ceilings(_read(AMX)),
    "amx_parts": lambda _: _parts(_read(AMX_LATENCY)),
    "together": _together,
    "ceilings": _ceilings,
    "gpu": _gpu,
    "circumstances": _circumstances,
}


if __name__ == "__main__":
    if not RESULTS.is_file():
        sys.exit(f"{RESULTS.relative_to(ROOT)} is not there: `make bench` writes it, and then these pages")
    measured = _read(RESULTS)
    for file in PAGES:
        file.write_text(with_tables(file.read_text(encoding="utf-8"), measured), encoding="utf-8")
        print(file.relative_to(ROOT), file=sys.stderr)
