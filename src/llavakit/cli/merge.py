"""`llava merge`: a LoRA adapter and its base as one model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from llavakit.cli.options import DType, PickleOption, VisionTowerOption


def merge(
    adapter: Annotated[
        Path, typer.Argument(metavar="ADAPTER", help="The adapter's folder.", exists=True, file_okay=False)
    ],
    base: Annotated[Path, typer.Option(help="Folder of the model it was trained on.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="The folder to write.", file_okay=False)],
    vision_tower: VisionTowerOption = None,
    dtype: Annotated[DType, typer.Option(help="Number format of the weights; auto keeps the base's.")] = "auto",
    allow_pickle: PickleOption = False,
) -> None:
    """Merge a LoRA adapter into its base, as a native folder. Prints where it is, and what it did to the logits."""
    from llavakit.checkpoint.contents import Parts
    from llavakit.checkpoint.merging import merge_adapter
    from llavakit.cli.opening import number_format

    parts = Parts(vision_tower, base)
    merged = merge_adapter(adapter, out, parts=parts, dtype=number_format(dtype), allow_pickle=allow_pickle)
    print(f"{merged.num_weights} weights changed", file=sys.stderr)
    if merged.effect is None:
        print("logits not compared: the model is too large to be run twice in passing", file=sys.stderr)
    else:
        print(f"largest change of a logit by the adapter: {merged.effect:.3g}", file=sys.stderr)
        print(f"largest change of a logit by merging it:  {merged.error:.3g}", file=sys.stderr)
    print(out)
