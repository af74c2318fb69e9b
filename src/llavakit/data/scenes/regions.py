"""Regions of a picture and the words for each: what teaches the tower which patch shows what."""

import math
from collections import Counter
from typing import Any

from .captions import Group, at, phrase, plural
from .draw import letter_extents
from .layout import Box
from .scene import Item, Scene, place
from .vocabulary import COUNTS

Region = dict[str, Any]  # "text", and "box": left, top, right, bottom in whole pixels


def regions(scene: Scene) -> list[Region]:
    """Every item, or every letter of it; and the background, which has no box, being wherever nothing else is.

    An item's words say all that anybody may ask about it: how it looks, where it is, and how many of its name there
    are. What the tower has in its patches, the language model need not work out from them.
    """
    numbers = Counter(item.name for item in scene.items)
    found: list[Region] = [{"text": scene.background.phrase}]
    for item in scene.items:
        if item.is_written:
            found += [_region(box, f"{letter} in {item.color}") for letter, box in _letters(item)]
            continue
        text = phrase(Group(item.kind, item.name, item.color, item.size))
        if where := place(scene, item):
            text += f" {at(where)}"
        if (number := numbers[item.name]) > 1:
            text += f", one of {COUNTS[number]} {plural(item.name)}"
        found.append(_region(item.box, text))
    return found


def _region(box: Box, text: str) -> Region:
    return {"box": [round(side) for side in box], "text": text}


def _letters(item: Item) -> list[tuple[str, Box]]:
    """Each letter with its box, turned as the word is about its middle."""
    x, y = item.center
    turn = math.radians(-item.angle)
    extents, half = letter_extents(item)
    boxes = []
    for letter, (left, right) in zip(item.name, extents, strict=True):
        along, width = (left + right) / 2, right - left
        cx, cy = x + along * math.cos(turn), y + along * math.sin(turn)
        boxes.append((letter, (cx - width / 2, cy - half, cx + width / 2, cy + half)))
    return boxes
