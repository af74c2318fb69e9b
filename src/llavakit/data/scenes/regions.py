"""Regions of a picture and the words for each: what teaches the tower which patch shows what."""

import math
import random
from typing import Any

from .captions import Group, phrase
from .draw import letter_extents
from .layout import Box
from .scene import Item, Scene

Region = dict[str, Any]  # "text", and "box": left, top, right, bottom in whole pixels

_WHOLE_WORD = 0.25  # of words are one region, told of as a thing; of the others each letter is one


def regions(scene: Scene, rng: random.Random) -> list[Region]:
    """Every item, or every letter of it; and the background, which has no box, being wherever nothing else is."""
    found: list[Region] = [{"text": scene.background.phrase}]
    for item in scene.items:
        if item.is_written and rng.random() >= _WHOLE_WORD:
            found += [_region(box, letter) for letter, box in _letters(item)]
        elif item.is_written:
            found.append(_region(item.box, f"a {item.kind} in {item.color}"))
        else:
            found.append(_region(item.box, phrase(Group(item.kind, item.name, item.color, item.size))))
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
