"""`llava parity`: whether two checkpoints are the same model, and if not, where they part."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llavakit.cli.options import BaseOption, DeviceOption, DType, ThreadsOption, VisionTowerOption, not_empty

if TYPE_CHECKING:
    from llavakit.parity.report import Report, Stage
    from llavakit.parity.walk import Walk

_TOLERANCE_HELP = (
    "Largest difference allowed between numbers.  "
    "[default: pixels 1e-6, features and projected 2e-5, logits 1e-4, which suits float32]"
)


def parity(
    one: Annotated[
        str, typer.Argument(metavar="A", help="A checkpoint folder or name, as --model takes it.", callback=not_empty)
    ],
    other: Annotated[str, typer.Argument(metavar="B", help="The one to compare it with.", callback=not_empty)],
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Show these.  [default: five drawn ones]", exists=True, file_okay=False),
    ] = None,
    question: Annotated[str, typer.Option(help="What to ask about each.")] = "What is in the picture?",
    tolerance: Annotated[float | None, typer.Option(min=0, help=_TOLERANCE_HELP)] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 24,
    vision_tower_a: VisionTowerOption = None,
    base_a: BaseOption = None,
    vision_tower_b: VisionTowerOption = None,
    base_b: BaseOption = None,
    device: DeviceOption = "auto",
    dtype: Annotated[DType, typer.Option(help="Number format of the weights.")] = "float32",
    threads: ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the text.")] = False,
) -> None:
    """Say stage by stage how far two checkpoints are apart.

    Both are shown the same pictures. Exit code 0: they agree. 1: they part, and the first place where they do is told.
    """
    from llavakit.cli.opening import open_model
    from llavakit.parity.pictures import drawn, from_folder
    from llavakit.parity.report import TOLERANCES, report
    from llavakit.parity.walk import walk

    shown = drawn() if pictures is None else from_folder(pictures)

    def walks(name: str, tower: Path | None, base: Path | None) -> dict[str, Walk]:
        """One model at a time is in memory."""
        loaded = open_model(name, vision_tower=tower, base=base, device=device, dtype=dtype, threads=threads)
        return {title: walk(loaded, image, question, max_tokens=max_tokens) for title, image in shown.items()}

    found = report(
        walks(one, vision_tower_a, base_a),
        walks(other, vision_tower_b, base_b),
        TOLERANCES if tolerance is None else dict.fromkeys(TOLERANCES, tolerance),
    )
    print(json.dumps(_as_object(found), ensure_ascii=False) if as_json else "\n".join(_lines(found)))
    if found.first_to_part:
        raise typer.Exit(1)


def _as_object(found: Report) -> dict[str, object]:
    """JSON knows no infinite numbers: they are text there."""
    told = dataclasses.asdict(found)
    for stage in told["stages"]:
        if stage["largest"] == math.inf:
            stage["largest"] = "inf"
    first = found.first_to_part
    return {"agree": first is None, "first_to_part": first and first.name, **told}


def _lines(found: Report) -> Iterator[str]:
    for stage in found.stages:
        yield f"{stage.name:<10} {_measured(stage):<32} {'agree' if stage.agrees else 'PART'}"
    first = found.first_to_part
    if first is None:
        yield f"they agree on {len(found.pictures)} picture{'s' * (len(found.pictures) != 1)}"
    elif first.parting:
        place = f" at {list(first.parting.index)}" if first.parting.index else ""
        yield f"they part at {first.name}, in {first.parting.picture}{place}: {first.parting.says}"


def _measured(stage: Stage) -> str:
    if stage.tolerance is None:
        return "equal" if stage.agrees else "not equal"
    if stage.largest is None:
        return "of other shapes"
    return f"{stage.largest:.1e} apart, {stage.tolerance:.0e} allowed"
