"""Which words belong to which patch of the tower's view, worked out from boxes with words in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from llavakit.config import ViewMode, VisionConfig
from llavakit.data.records import DataError
from llavakit.processing.image import view_of

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Region:
    """A box in pixels of the upright picture and the words for what is in it; no box is wherever no other one is."""

    box: Box | None
    text: str


def read_regions(given: Any, where: str) -> list[Region]:
    """The `regions` of a sample; raises `DataError` for anything but boxes with words."""
    try:
        return [_region(each) for each in given]
    except (TypeError, KeyError, ValueError, AttributeError):
        wanted = "a list of objects with 'box' (left, top, right, bottom) and 'text'"
        raise DataError(f"{where}: 'regions' should be {wanted}, not {given!r}") from None


def _region(given: Any) -> Region:
    text, box = given["text"], given.get("box")
    if not isinstance(text, str) or not text:
        raise ValueError
    if box is None:
        return Region(None, text)
    left, top, right, bottom = (float(side) for side in box)
    return Region((left, top, right, bottom), text)


def patch_texts(
    regions: Sequence[Region], picture_size: tuple[int, int], vision: VisionConfig, resize_mode: ViewMode
) -> list[str | None]:
    """The words for each patch, row by row; None outside the picture, or where it has no region.

    The patch that holds a region's middle has its words; that of several small ones, such as letters, has the words
    of all, from left to right. Other patches are `part of` the smallest region that covers their middle. So every
    region has one patch that stands for it, and can be counted.
    """
    across, down, *shift = view_of(*picture_size, vision.image_size, resize_mode)

    def in_patches(box: Box) -> Box:
        left, top, right, bottom = (
            (side * scale + by) / vision.patch_size
            for side, scale, by in zip(box, (across, down) * 2, shift * 2, strict=True)
        )
        return left, top, right, bottom

    boxes = [(in_patches(region.box), region.text) for region in regions if region.box]
    middles = sorted(((left + right) / 2, (top + bottom) / 2, text) for (left, top, right, bottom), text in boxes)
    by_area = sorted(boxes, key=lambda each: (each[0][2] - each[0][0]) * (each[0][3] - each[0][1]))
    picture = in_patches((0, 0, *picture_size))
    ground = [(picture, region.text) for region in regions if region.box is None]
    texts: list[str | None] = []
    for row, column in product(range(vision.image_size // vision.patch_size), repeat=2):
        held = [text for x, y, text in middles if (y // 1, x // 1) == (row, column)]
        covering = (f"part of {text}" for box, text in by_area + ground if _covers(box, column + 0.5, row + 0.5))
        texts.append(" ".join(held) if held else next(covering, None))
    return texts


def _covers(box: Box, x: float, y: float) -> bool:
    left, top, right, bottom = box
    return left <= x < right and top <= y < bottom
