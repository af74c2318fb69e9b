"""`llava rm`: a pulled model off this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def rm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A pulled model, as llava list names it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a pulled model, all of its revisions. Your own folders are never touched."""
    from llavakit import hub

    repo, _ = hub.parse(name)
    folder = hub.cache_folder(repo)
    if "@" in name:
        raise ValueError(f"llava rm deletes every revision: leave out the @ ({repo})")
    if folder.is_dir() and not yes:
        typer.confirm(f"Delete {folder} ({hub.size_of(folder) / 1e6:,.1f} MB)?", abort=True, err=True)
    print(f"{repo} removed: {hub.remove(repo) / 1e6:,.1f} MB freed")
