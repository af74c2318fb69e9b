"""`llava pull`: a model from the Hugging Face hub onto this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of llava list, or owner/repo of the hub.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.  [default: main]")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only look whether it is here.")] = False,
) -> None:
    """Download a model, or what is missing of it. Prints where it is; only files that are needed are taken.

    With a model of the catalogue come the vision tower and the base that it needs.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from llavakit.catalog import entry_of
    from llavakit.hub.download import pull as pull_model

    entry = entry_of(name)
    wanted = name if revision is None else f"{name.partition('@')[0]}@{revision}"
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks = {}

        def watch(file: str, there: int, total: int) -> None:
            if (file, total) not in tasks:
                tasks[file, total] = progress.add_task(file, total=total)
            progress.update(tasks[file, total], completed=there)

        folder = pull_model(wanted, watch, offline=offline)
        for part in filter(None, (entry.needs_tower, entry.needs_base) if entry else ()):
            pull_model(part, watch, offline=offline)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(folder)
    console.print(f"{size / 1e6:,.1f} MB. Next: llava show {wanted}", highlight=False, soft_wrap=True)
