"""Key tables applied, in either direction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from llavakit.checkpoint.tables import Row, Table

T = TypeVar("T")


def rename(key: str, table: Table) -> Row | None:
    """The row for one foreign key, its hole filled on both sides; None if the table does not know the key."""
    for row in table:
        hole = _match(key, row.theirs)
        if hole is not None:
            return Row(key, None if row.ours is None else row.ours.replace("*", hole))
    return None


def rename_back(key: str, table: Table) -> str | None:
    """The foreign key for one of ours; None if the table has no place for it."""
    for row in table:
        hole = None if row.ours is None else _match(key, row.ours)
        if hole is not None:
            return row.theirs.replace("*", hole)
    return None


def by_our_names(stored: Mapping[str, T], table: Table) -> dict[str, T]:
    """Foreign tensors by our names, without those that never matter; a key the table does not know stays as it is."""
    rows = {name: rename(name, table) or Row(name, name) for name in stored}
    return {row.ours: stored[name] for name, row in rows.items() if row.ours is not None}


def best_layout(keys: Iterable[str], layouts: tuple[Table, ...]) -> Table:
    """The layout that knows most of the keys; the first of them in a tie."""
    keys = list(keys)
    return max(layouts, key=lambda table: sum(rename(key, table) is not None for key in keys))


def _match(key: str, pattern: str) -> str | None:
    """What fills the pattern's hole (empty if it has none), or None if the key is not of that pattern."""
    before, star, after = pattern.partition("*")
    if not star:
        return "" if key == pattern else None
    hole = key[len(before) : len(key) - len(after)]
    return hole if key == before + hole + after and hole else None
