"""What a benchmark prints: a table for people, and at the end everything as one JSON object on one line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from llavakit.bench.figures import spoken
from llavakit.circumstances import circumstances
from llavakit.kernels import instruction_set


def report(
    what: str, found: dict[str, Any], *, threads: int, device: str = "cpu", packages: Sequence[str] = ()
) -> dict[str, Any]:
    """The results under the circumstances of this run; `packages` are named with their versions too."""
    told = circumstances(torch.device(device))
    told["machine"] |= {
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "isa": instruction_set(),
        "threads": threads,
    }
    told["versions"] |= {name: _version(name) for name in packages}
    return {"what": what, **found, **told}


def _memory() -> int | None:
    meminfo = Path("/proc/meminfo")
    return int(meminfo.read_text().split(maxsplit=2)[1]) * 1024 if meminfo.is_file() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they have to be; the first one to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def figures_table(figures: dict[str, dict[str, Any]]) -> str:
    return table([[name.replace("_", " "), spoken(one)] for name, one in figures.items()])


def products_table(found: dict[str, Any]) -> str:
    """The products, their rates and the ceilings below them."""
    rows = [["matrix", "shape", "rows", "GB/s", "GOP/s"]]
    for one in found["products"]:
        shape = "x".join(map(str, one["shape"]))
        rows.append([one["matrix"], shape, str(one["rows"]), spoken(one["gbps"]), spoken(one["gops"])])
    rate = "not probed" if found["int8_gops"] is None else spoken(found["int8_gops"])
    rows.append(["ceilings, probed", "", "", spoken(found["read_gbps"]), rate])
    return table(rows)


def throughput_table(found: dict[str, Any]) -> str:
    times = next(value for key, value in found.items() if key.startswith("times_"))
    shares = found["share_of_bandwidth"]
    rows = [["conversations", "tokens/s in all", "times the first", "of the bandwidth"]]
    rows += [
        [count, spoken(rate), spoken(times[count]), spoken(shares[count])]
        for count, rate in found["tokens_per_s"].items()
    ]
    return table(rows)


def peers_table(found: dict[str, Any]) -> str:
    """Seconds of each job of each peer, and then the targets."""
    names = list(found["figures"])
    jobs = list(found["figures"][names[0]]["seconds"])
    rows = [["seconds", *names]]
    for job in jobs:
        rows.append([job, *(spoken(found["figures"][name]["seconds"][job]) for name in names)])
    rows.append(["load", *(spoken(found["figures"][name]["load_s"]) for name in names)])
    rows.append(["resident GB", *(_gigabytes(found["figures"][name]["memory"]) for name in names)])
    aims = [["target", "wanted", "found", ""]]
    for one in found["targets"]:
        wanted = f"at least {one['at_least']:g}" if "at_least" in one else f"at most {one['at_most']:g}"
        aims.append([one["target"], wanted, spoken(one), "reached" if one["reached"] else "missed"])
    return f"{table(rows)}\n\n{table(aims)}"


def _gigabytes(memory: dict[str, int]) -> str:
    return f"{memory['resident'] / 1e9:.2f}" if memory else "-"
