"""`llava train`: a recipe, with values of its configuration changed where wanted."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe by name, or the saved configuration of a run.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to change in its configuration.")
    ] = None,
) -> None:
    """Train by a recipe, such as pocket. An interrupted run continues from its last checkpoint.

    Prints the folder of the trained model.
    """
    from llavakit.train.loop import Interrupted
    from llavakit.train.run import run

    try:
        print(run(recipe, overrides or []))
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        raise typer.Exit(130) from None
