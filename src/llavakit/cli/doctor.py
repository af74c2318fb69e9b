"""`llava doctor`: what a checkpoint folder is, how it is taken, and what is wrong or unusual with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llavakit.cli.options import BaseOption, ModelArgument, VisionTowerOption
from llavakit.cli.terminal import interrupts_kept

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
    """Say what a checkpoint is, and what is wrong or unusual with it.

    Also how it is taken: its format, template, tokenizer. Reads headers only, and never a pickle. Exit code 0: usable,
    with remarks or without. 1: not usable as it is.
    """
    from llavakit.checkpoint.contents import Parts
    from llavakit.checkpoint.doctor import Diagnosis, examine
    from llavakit.checkpoint.findings import Finding
    from llavakit.checkpoint.load import companions, locate

    try:
        parts = companions(model, Parts(vision_tower, base))
        folder = Path(model) if Path(model).is_file() else locate(model)  # of a file the diagnosis says what it is
    except ValueError as error:
        if not as_json:
            raise
        diagnosis = Diagnosis(Path(model), "nothing that is here", findings=[Finding("wrong", str(error))])
    else:
        with interrupts_kept():
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
    shown = () if finding.severity == "note" and more > 0 else finding.names[:_SHOWN]  # a note is worth one line
    names = ", ".join(shown) + (f" and {more} more" if shown and more > 0 else "")
    source = f" ({finding.source})" if finding.source else ""
    yield f"{finding.severity + ':':<10}{finding.says}{': ' * bool(names)}{names}{source}"
    if finding.do:
        yield f"{'':<10}{finding.do}"
