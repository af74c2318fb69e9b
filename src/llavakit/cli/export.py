"""`llava export`: a model in somebody else's format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from llavakit.cli.options import BaseOption, DType, ModelArgument, VisionTowerOption

Target = Literal[
    "hf", "original", "gguf"
]  # the names of `checkpoint.exporting.WRITERS`, which imports too much for --help

Precision = Literal["f16", "q8_0", "q4_0"]  # that of `checkpoint.gguf.language`, for the same reason


def export(
    model: ModelArgument,
    to: Annotated[
        Target,
        typer.Option(
            help="hf: for transformers, vLLM, SGLang, LMDeploy; original: the LLaVA code; gguf: llama.cpp, Ollama."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.", file_okay=False)],
    dtype: Annotated[DType, typer.Option(help="Number format of the weights; auto keeps the model's.")] = "auto",
    type: Annotated[
        Precision | None, typer.Option(help="Number format of the language model in GGUF.  [default: f16]")
    ] = None,
    vision_tower: VisionTowerOption = None,
    base: BaseOption = None,
) -> None:
    """Write a model for other programs. Prints where it is, and what they will do otherwise than llavakit."""
    if to == "gguf" and dtype != "auto":
        raise ValueError("--dtype is not for GGUF, which has formats of its own: give --type f16, q8_0 or q4_0")
    if to != "gguf" and type is not None:
        raise ValueError(f"--type is for --to gguf; the weights of {to} take --dtype")
    from llavakit.checkpoint.contents import Parts
    from llavakit.checkpoint.exporting import export_checkpoint
    from llavakit.cli.opening import number_format

    parts = Parts(vision_tower, base)
    for difference in export_checkpoint(
        model, out, to=to, parts=parts, dtype=number_format(dtype), precision=type or "f16"
    ):
        print(f"note: {difference}", file=sys.stderr)
    print(out)
