"""`llava import`: a checkpoint of any format, written as a native folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from llavakit.cli.options import BaseOption, DType, ModelArgument, PickleOption, VisionTowerOption


def import_model(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="The folder to write.", file_okay=False)],
    vision_tower: VisionTowerOption = None,
    base: BaseOption = None,
    dtype: Annotated[DType, typer.Option(help="Number format of the weights; auto keeps the source's.")] = "auto",
    allow_pickle: PickleOption = False,
) -> None:
    """Write a checkpoint of any format as a native folder. Prints where it is."""
    from llavakit.checkpoint.contents import Parts
    from llavakit.checkpoint.importing import import_checkpoint
    from llavakit.cli.opening import number_format

    parts = Parts(vision_tower, base)
    is_new = not out.exists()
    import_checkpoint(model, out, parts=parts, dtype=number_format(dtype), allow_pickle=allow_pickle)
    if not is_new:
        print(f"{out} held an earlier checkpoint, which this one has replaced", file=sys.stderr)
    print(out)
