"""Where everything goes: apart from each other, inside the canvas, and mostly clearly in one of nine places."""

import random
from dataclasses import replace

from .scene import CLEAR, Item

Box = tuple[float, float, float, float]
_GAP = 0.035  # the least distance between two things, of the long side
_RIM = 0.015


def arrange(items: list[Item], width: int, height: int, rng: random.Random) -> list[Item] | None:
    """The items at their places, in reading order; None where they do not fit."""
    taken: list[Box] = []
    placed: list[Item] = []
    if _is_row(items) and rng.random() < 0.3:
        return _in_a_row(items, width, height, rng)
    for item in sorted(items, key=lambda item: -item.length):
        box = _free_box(item, taken, width, height, rng)
        if box is None:
            return None
        taken.append(box)
        placed.append(replace(item, box=box))
    return sorted(placed, key=lambda item: reading_key(item, height))


def reading_key(item: Item, height: int) -> tuple[int, float]:
    """From the top third to the bottom third, and in each from left to right."""
    x, y = item.center
    return int(y / height * 3), x


def _free_box(item: Item, taken: list[Box], width: int, height: int, rng: random.Random) -> Box | None:
    w, h = item.box[2] - item.box[0], item.box[3] - item.box[1]
    gap, rim = _GAP * max(width, height), _RIM * max(width, height)
    if w + 2 * rim > width or h + 2 * rim > height:
        return None
    for _ in range(40):
        x = _center(w, width, rim, rng)
        y = _center(h, height, rim, rng)
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        if not any(_touch(box, other, gap) for other in taken):
            return box
    return None


def _center(extent: float, side: int, rim: float, rng: random.Random) -> float:
    """A centre at which the extent fits: mostly well inside a third of the side, each third as likely."""
    low, high = extent / 2 + rim, side - extent / 2 - rim
    if rng.random() < 0.8:
        third = rng.randrange(3)
        from_, to = max(low, (third / 3 + CLEAR) * side), min(high, ((third + 1) / 3 - CLEAR) * side)
        if from_ <= to:
            return rng.uniform(from_, to)
    return rng.uniform(low, high)


def _touch(a: Box, b: Box, gap: float) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def _is_row(items: list[Item]) -> bool:
    return 2 <= len(items) <= 4 and len({(i.name, i.color) for i in items}) == 1 and items[0].size == "small"


def _in_a_row(items: list[Item], width: int, height: int, rng: random.Random) -> list[Item] | None:
    """Equal things side by side, as people draw them to be counted."""
    widest, tallest = (max(i.box[k + 2] - i.box[k] for i in items) for k in (0, 1))
    pitch = widest + rng.uniform(1, 2) * _GAP * max(width, height)
    total = pitch * len(items)
    if total > width or tallest * 1.1 > height:
        return None
    x, y = rng.uniform(0, width - total) + pitch / 2, rng.uniform(tallest / 2, height - tallest / 2)
    placed = []
    for k, item in enumerate(items):
        w, h = item.box[2] - item.box[0], item.box[3] - item.box[1]
        cx = x + k * pitch
        placed.append(replace(item, box=(cx - w / 2, y - h / 2, cx + w / 2, y + h / 2)))
    return placed
