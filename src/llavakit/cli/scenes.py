"""`llava scenes`: samples of the drawn world, as LLaVA JSON and image files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer


def scenes(
    out: Annotated[Path, typer.Option(help="Folder to write to.", file_okay=False)],
    count: Annotated[int, typer.Option(min=1, help="Number of samples.")],
    kind: Annotated[str, typer.Option(help="What stands beside the pictures.")] = "captions",
    split: Annotated[str, typer.Option(help="train, or heldout with what never appears in train.")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws another world.")] = 0,
    start: Annotated[int, typer.Option(min=0, help="Number of the first sample.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 1,
) -> None:
    """Draw samples of the drawn world. Prints the path of the JSON file that lists them."""
    from llavakit.config import nearest
    from llavakit.data.scenes.split import Split
    from llavakit.data.scenes.write import SampleKind, write_scenes

    for option, value, choices in (("--kind", kind, get_args(SampleKind)), ("--split", split, get_args(Split))):
        if value not in choices:
            raise typer.BadParameter(f"there is no {value!r}; {nearest(value, choices)}", param_hint=option)
    print(write_scenes(out, count=count, seed=seed, split=split, kind=kind, workers=workers, start=start))
