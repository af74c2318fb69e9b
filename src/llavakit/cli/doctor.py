"""`llava doctor`: what a checkpoint folder is, how it is taken, and what is wrong or unusual with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llavakit.cli.options import BaseOption, ModelArgument, VisionTowerOption

if TYPE_CHECKING:
    from llavakit.checkpoint.doctor import Diagnosis
    from llavakit.checkpoint.findings import Finding

_SHOWN = 4  # names in a line of text; --json has them all
_WEIGHTS_HELP = "Read every weight too, and look for numbers that are none. Takes as long as reading the files."


def doctor(
    model: ModelArgument,
    vision_tower: VisionTowerOption = None,
    base: BaseOption = None,
    weights: Annotated[bool, typer.Option("--weights", help=_WEIGHTS_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the text.")] = False,
) -> None:
    """Say what a checkpoint is, how it is taken, and what is wrong or unusual with it.

    Reads headers only, and never a pickle. Exit code 0: usable, with remarks or without. 1: not usable as it is.
    """
    from llavakit.checkpoint.contents import Parts
    from llavakit.checkpoint.doctor import examine
    from llavakit.checkpoint.load import companions, locate

    parts = companions(model, Parts(vision_tower, base))
    try:
        folder = locate(model)
    except ValueError:
        if not Path(model).exists():
            raise
        folder = Path(model)  # a file: the diagnosis says so
    diagnosis = examine(folder, parts, with_weights=weights)
    if as_json:
        print(json.dumps(_as_object(diagnosis), ensure_ascii=False))
    else:
        print("\n".join(_lines(diagnosis)))
    if not diagnosis.usable:
        raise typer.Exit(1)


def _as_object(diagnosis: Diagnosis) -> dict[str, object]:
    return {
        "folder": str(diagnosis.folder),
        "what": diagnosis.what,
        "usable": diagnosis.usable,
        "treated_as": diagnosis.treated_as,
        "findings": [dataclasses.asdict(finding) for finding in diagnosis.findings],
    }


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    yield f"{diagnosis.folder}: {diagnosis.what}"
    for name, value in diagnosis.treated_as.items():
        yield f"  {name:<13} {value}"
    for finding in diagnosis.findings:
        yield from _told(finding)
    remarks = sum(finding.severity == "unusual" for finding in diagnosis.findings)
    unusual = f"with {remarks} unusual thing{'s' * (remarks != 1)}" if remarks else "nothing unusual"
    yield f"usable, {unusual}" if diagnosis.usable else "not usable as it is"


def _told(finding: Finding) -> Iterator[str]:
    more = len(finding.names) - _SHOWN
    names = ", ".join(finding.names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    source = f" ({finding.source})" if finding.source else ""
    yield f"{finding.severity + ':':<10}{finding.says}{': ' * bool(names)}{names}{source}"
    if finding.do:
        yield f"{'':<10}{finding.do}"
