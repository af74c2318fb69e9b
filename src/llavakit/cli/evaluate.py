"""`llava evaluate`: how often a model is right, by kind of question."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llavakit.cli.options import DeviceOption, DTypeOption, ModelArgument, ThreadsOption


def evaluate(
    model: ModelArgument,
    data: Annotated[Path, typer.Option(help="A folder that `llava scenes --split heldout` wrote.")],
    device: DeviceOption = "auto",
    dtype: DTypeOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Score a model on a data set. Every question is asked, and the answers are scored by kind of question."""
    from llavakit.cli.opening import open_model
    from llavakit.evaluate.run import run

    run(open_model(model, device=device, dtype=dtype, threads=threads), data)
