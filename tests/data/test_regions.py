"""Words for patches: where the boxes say they are, in every way that pictures become square."""

from __future__ import annotations

from typing import Any

import pytest

from llavakit.config import VisionConfig
from llavakit.data.records import DataError
from llavakit.data.regions import patch_texts, read_regions

VISION = VisionConfig(image_size=40, patch_size=10, hidden_size=8, num_heads=2)


def rows(regions: list[dict[str, Any]], size: tuple[int, int], mode: Any = "pad") -> list[list[str | None]]:
    texts = patch_texts(read_regions(regions, "r"), size, VISION, mode)
    return [texts[at : at + 4] for at in range(0, 16, 4)]


def test_a_region_has_one_patch_with_its_words_and_others_are_part_of_it() -> None:
    regions = [{"text": "sky"}, {"text": "a cat", "box": [0, 0, 25, 20]}]
    assert rows(regions, (40, 40)) == [
        ["part of a cat", "part of a cat", "part of sky", "part of sky"],
        ["part of a cat", "a cat", "part of sky", "part of sky"],
        ["part of sky"] * 4,
        ["part of sky"] * 4,
    ]


def test_letters_in_one_patch_are_read_from_left_to_right() -> None:
    regions = [{"text": "B", "box": [5, 1, 9, 9]}, {"text": "A", "box": [1, 1, 5, 9]}]
    assert rows(regions, (40, 40))[0] == ["A B", None, None, None]


def test_the_smaller_of_two_regions_is_seen() -> None:
    regions = [{"text": "board", "box": [0, 0, 40, 40]}, {"text": "S", "box": [0, 0, 20, 20]}]
    assert rows(regions, (40, 40))[0] == ["part of S", "part of S", "part of board", "part of board"]


@pytest.mark.parametrize(
    ("size", "mode", "expected"),
    [
        # 80 x 40 padded to 80 x 80: half as large, ten pixels down; the ground ends where the picture does.
        ((80, 40), "pad", [[None] * 4, ["x"] + ["part of y"] * 3, ["part of y"] * 4, [None] * 4]),
        # 80 x 40 cut to its middle 40 x 40: twenty pixels to the left, so that the box is no longer seen.
        ((80, 40), "square", [["part of y"] * 4] * 4),
        # 80 x 40 pulled to a square: half as wide, as high as before.
        ((80, 40), "stretch", [["part of x"] + ["part of y"] * 3, ["x"] + ["part of y"] * 3, *[["part of y"] * 4] * 2]),
    ],
)
def test_boxes_move_with_the_picture(size: tuple[int, int], mode: str, expected: list[list[str | None]]) -> None:
    assert rows([{"text": "y"}, {"text": "x", "box": [0, 0, 20, 20]}], size, mode) == expected


@pytest.mark.parametrize("given", [None, 3, [3], [{"box": [1, 2, 3, 4]}], [{"text": "a", "box": [1, 2, 3]}],
                                   [{"text": "a", "box": ["left", 2, 3, 4]}], [{"text": ""}]])  # fmt: skip
def test_what_is_no_region_names_its_sample(given: Any) -> None:
    with pytest.raises(DataError, match="sample 'r7': 'regions' should be a list of objects"):
        read_regions(given, "sample 'r7'")
