"""`llava train`: a recipe, with values of its configuration changed where wanted."""

from __future__ import annotations

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
    """Train by a recipe, such as pocket. An interrupted run continues from its last checkpoint."""
    from llavakit.train import run

    run(recipe, overrides or [])
