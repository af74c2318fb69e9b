"""Scenes: the same for ever, whole, apart, and of one split or the other."""

from collections import Counter

import pytest

from llavakit.data.scenes.fonts import HELD_OUT_FONT
from llavakit.data.scenes.sample import sample_scene
from llavakit.data.scenes.split import HELD_OUT_PAIRS, held_out_reasons, held_out_together, held_out_word
from llavakit.data.scenes.things import SETTINGS, THINGS
from llavakit.data.scenes.vocabulary import COLORS, SHAPES, distance

TRAIN = [sample_scene(5, index) for index in range(400)]
HELD_OUT = [sample_scene(5, index, "heldout") for index in range(150)]


def test_the_tables_are_as_large_as_promised():
    assert len(SHAPES) == len(COLORS) == 10
    assert len(THINGS) >= 110
    assert all(name in THINGS for setting in SETTINGS for name in setting)
    assert {shape for _, shape in HELD_OUT_PAIRS} == set(SHAPES) and {color for color, _ in HELD_OUT_PAIRS} == set(
        COLORS
    )


def test_a_scene_is_a_function_of_its_numbers():
    assert [sample_scene(5, index) for index in range(40)] == TRAIN[:40]
    assert sample_scene(6, 0) != TRAIN[0]


@pytest.mark.parametrize("scene", TRAIN[:150] + HELD_OUT[:50])
def test_everything_is_inside_apart_and_large_enough(scene):
    boxes = [item.box for item in scene.items]
    assert 1 <= len(boxes) <= 6
    assert all(a >= 0 and b >= 0 and c <= scene.width and d <= scene.height for a, b, c, d in boxes)
    for k, one in enumerate(boxes):
        for other in boxes[:k]:
            assert one[0] > other[2] or other[0] > one[2] or one[1] > other[3] or other[1] > one[3]
    assert all(item.length >= 0.18 * scene.long_side for item in scene.items if not item.is_written)


def test_shapes_stand_out_from_what_is_behind_them():
    for scene in TRAIN:
        for item in scene.items:
            if item.kind == "shape":
                assert min(distance(item.rgb, behind) for behind in scene.background.colors) > 25


def test_training_never_shows_what_is_held_out():
    for scene in TRAIN:
        things = {item.name for item in scene.items if item.kind == "thing"}
        assert not any((item.color, item.name) in HELD_OUT_PAIRS for item in scene.items)
        assert not any(held_out_together(a, b) for a in things for b in things)
        assert not any(
            item.is_written and (held_out_word(item.name) or item.font == HELD_OUT_FONT) for item in scene.items
        )


def test_the_held_out_split_shows_nothing_else():
    reasons = Counter(reason for scene in HELD_OUT for reason in held_out_reasons(scene))
    assert all(held_out_reasons(scene) for scene in HELD_OUT)
    assert set(reasons) == {"pair", "together", "word", "font"}
    for scene in HELD_OUT:
        written = [item for item in scene.items if item.is_written]
        assert all(item.font == HELD_OUT_FONT and held_out_word(item.name) for item in written)
