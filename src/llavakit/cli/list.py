"""`llava list`: the models of this machine, and those that can be pulled."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list instead of the table.")] = False,
    templates: Annotated[bool, typer.Option("--templates", help="List what --template takes instead.")] = False,
) -> None:
    """List the models that are here, and those to pull by name."""
    if templates:
        _list_templates(as_json=as_json)
        return
    from llavakit import catalog, hub

    here = {model.repo: model for model in hub.pulled()}
    rows = []
    for name, entry in catalog.MODELS.items():
        model = here.pop(entry.hub, None)
        folder = catalog.resolve(name) if entry.folder else model.folder if model else None
        size = hub.size_of(folder) if folder and entry.folder else model.size if model else None
        rows.append(
            {
                "name": name,
                "folder": folder and str(folder),
                "bytes": size,
                "format": entry.format,
                "licence": entry.licence,
            }
        )
    rows += [
        {"name": model.repo, "folder": str(model.folder), "bytes": model.size, "format": None, "licence": ""}
        for model in here.values()
        if "llava" in (model.folder / "config.json").read_text(encoding="utf-8", errors="replace").lower()
    ]
    rows.sort(key=lambda row: row["folder"] is None)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        state = "not pulled" if row["folder"] is None else f"{row['bytes'] / 1e6:,.1f} MB"
        print(f"{row['name']:{width}} {state:>14}  {row['format'] or '':9} {row['licence'] or 'not stated'}")


def _list_templates(*, as_json: bool) -> None:
    from llavakit.processing.templates import TEMPLATES

    names = sorted(TEMPLATES)
    print(json.dumps(names) if as_json else "\n".join(names))
