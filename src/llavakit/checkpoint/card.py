"""What a model's card (README.md) says in the head that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from llavakit.checkpoint.regular import check_regular
from llavakit.checkpoint.save import CARD_FILE

_LONGEST = 1 << 16  # characters of a head; cards of that length are no cards


def licence_of(folder: Path) -> str:
    """The licence a folder states, in its card's words or as a file of its own; empty where it states none."""
    head = _head(folder / CARD_FILE)
    named = head.get("license")
    if named == "other":
        named = head.get("license_name") or head.get("license_link") or named
    if isinstance(named, list):
        named = ", ".join(map(str, named))
    if named:
        return str(named)
    files = sorted(path.name for path in folder.glob("LICEN[SC]E*"))
    return f"see {', '.join(files)}" if files else ""


def _head(card: Path) -> Mapping[str, object]:
    """The lines between the first two marks of a card; empty where there are none, or none that can be read."""
    try:
        check_regular(card)
        with card.open(encoding="utf-8") as file:
            text = file.read(_LONGEST)
        mark, _, rest = text.partition("\n")
        head = yaml.safe_load(rest.partition("\n---")[0]) if mark.strip() == "---" else None
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return head if isinstance(head, Mapping) else {}
