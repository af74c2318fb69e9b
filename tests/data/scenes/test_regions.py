"""Regions: everything has its words, and every letter its own place in the picture."""

from dataclasses import replace

from PIL import ImageChops

from llavakit.data.scenes import draw, sample_scene
from llavakit.data.scenes.regions import regions
from llavakit.data.scenes.scene import place
from llavakit.data.scenes.vocabulary import COUNTS

from .test_draw import needs_fonts


@needs_fonts
def test_every_item_has_its_words():
    """Its look, its place where that is clear, and how many of its name there are; of a word, every letter."""
    for index in range(60):
        scene = sample_scene(3, index)
        ground, *found = regions(scene)
        assert ground == {"text": scene.background.phrase}
        texts = [region["text"] for region in found]
        for item in scene.items:
            if item.is_written:
                assert not {f"{letter} in {item.color}" for letter in item.name} - set(texts)
                continue
            looks = f"{item.size} {item.color}" if item.kind == "shape" else item.size
            where = place(scene, item)
            number = sum(other.name == item.name for other in scene.items)
            ends = (f" the {where}" if where else "") + (f", one of {COUNTS[number]} " if number > 1 else "")
            assert any(f" {looks} " in f" {text}" and ends in text for text in texts)
            assert number > 1 or not any(f"{item.name}, one of" in text for text in texts)


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
        boxes = [region["box"] for region in regions(alone)[1:]]
        assert len(boxes) == len(word.name)
        ink = ImageChops.difference(draw(alone), draw(empty)).convert("L").point(lambda level: 255 * (level > 40))
        for left, top, right, bottom in boxes:
            inside = ink.crop((left, top, right, bottom)).histogram()[255]
            assert inside > 0.08 * (right - left) * (bottom - top)
        around = [pick(sides) for pick, sides in zip((min, min, max, max), zip(*boxes, strict=True), strict=True)]
        assert max(abs(a - b) for a, b in zip(ink.getbbox(), around, strict=True)) <= 0.12 * (around[2] - around[0])
        checked += 1
    assert checked > 20
