"""A report as a person reads it on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_COLUMNS = ("n", "score", "95%", "aim")


def render(results: dict[str, Any]) -> RenderableType:
    """The tables of a result of `report.summarize`."""
    targets = [(row["name"], row, f"{row['target']:g}") for row in results["targets"]]
    kinds = [(kind, row, "") for kind, row in results["kinds"].items()]
    forms = [(form, row, "") for form, row in results["forms"].items()]
    kept = [(f"{form}: kept", row["kept"], "") for form, row in results["forms"].items()]
    splits = [(tag, row, "") for tag, row in results["splits"].items()]
    faithful = [("captions: nothing invented", results["faithful"], "")] if results["faithful"] else []
    parts = (
        _table("aimed at", targets),
        _table("kind of question", [*kinds, *faithful]),
        _table("form of answer", [*forms, *kept]),
        _table("held out", splits),
        _table("", [("all", results["overall"], "")]),
    )
    return Group(*(part for part in parts if part.row_count))


def _table(title: str, rows: list[tuple[str, dict[str, Any], str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, min_width=32)
    for column in _COLUMNS:
        table.add_column(column, justify="right", min_width=6)
    for name, row, aim in rows:
        low, high = row["interval"]
        reached = not aim or row["score"] >= float(aim)
        score = Text(f"{row['score']:.1f}", style="" if not aim else "green" if reached else "red")
        table.add_row(name, str(row["n"]), score, f"{low:.1f}-{high:.1f}", aim)
    return table
