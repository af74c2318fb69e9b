"""`llava export`: a model in somebody else's format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from llavakit.cli.options import BaseOption, DType, ModelArgument, VisionTowerOption

Target = Literal["hf", "original"]  # the names of `checkpoint.exporting.WRITERS`, which imports too much for --help


def export(
    model: ModelArgument,
    to: Annotated[Target, typer.Option(help="hf: for transformers, vLLM, SGLang, LMDeploy; original: the LLaVA code.")],
    out: Annotated[Path, typer.Option(help="The folder to write.", file_okay=False)],
    dtype: Annotated[DType, typer.Option(help="Number format of the weights; auto keeps the model's.")] = "auto",
    vision_tower: VisionTowerOption = None,
    base: BaseOption = None,
) -> None:
    """Write a model for other programs. Prints where it is, and what they will do otherwise than llavakit."""
    import torch

    from llavakit.checkpoint.contents import Parts
    from llavakit.checkpoint.exporting import export_checkpoint

    wanted = None if dtype == "auto" else getattr(torch, dtype)
    for difference in export_checkpoint(model, out, to=to, parts=Parts(vision_tower, base), dtype=wanted):
        print(f"note: {difference}", file=sys.stderr)
    print(out)
