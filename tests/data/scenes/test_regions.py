"""Regions: everything has its words, and every letter its own place in the picture."""

import random
from dataclasses import replace

from PIL import ImageChops

from llavakit.data.scenes import draw, sample_scene
from llavakit.data.scenes.regions import regions

from .test_draw import needs_fonts

WHOLE, LETTERS = 1, 2  # seeds whose first throw tells of a word as one region, or letter by letter


@needs_fonts
def test_every_item_has_its_words():
    for index in range(60):
        scene = sample_scene(3, index)
        ground, *found = regions(scene, random.Random(index))
        assert ground == {"text": scene.background.phrase}
        texts = [region["text"] for region in found]
        for item in scene.items:
            if item.kind == "shape":
                assert any(f"{item.size} {item.color} {item.name}" in text for text in texts)
            elif item.kind == "thing":
                assert any(f"{item.size} " in text and item.name.split()[-1] in text for text in texts)
            else:
                assert f"a {item.kind} in {item.color}" in texts or item.name in "".join(texts)


@needs_fonts
def test_a_letter_is_where_its_box_is():
    """There is ink in every letter's box, and none beyond the boxes of all."""
    checked = 0
    for index in range(400):
        scene = sample_scene(3, index)
        word = next((item for item in scene.items if item.kind == "word" and item.style == "plain"), None)
        if word is None or scene.background.kind != "plain":
            continue
        alone, empty = replace(scene, items=(word,)), replace(scene, items=())
        boxes = [region["box"] for region in regions(alone, random.Random(LETTERS))[1:]]
        assert len(boxes) == len(word.name)
        ink = ImageChops.difference(draw(alone), draw(empty)).convert("L").point(lambda level: 255 * (level > 40))
        for left, top, right, bottom in boxes:
            inside = ink.crop((left, top, right, bottom)).histogram()[255]
            assert inside > 0.08 * (right - left) * (bottom - top)
        around = [pick(sides) for pick, sides in zip((min, min, max, max), zip(*boxes, strict=True), strict=True)]
        assert max(abs(a - b) for a, b in zip(ink.getbbox(), around, strict=True)) <= 0.12 * (around[2] - around[0])
        checked += 1
    assert checked > 20


@needs_fonts
def test_a_word_may_be_one_region():
    scene = next(s for s in (sample_scene(3, k) for k in range(400)) if [item.kind for item in s.items] == ["word"])
    (region,) = regions(scene, random.Random(WHOLE))[1:]
    assert region["text"] == f"a word in {scene.items[0].color}"
