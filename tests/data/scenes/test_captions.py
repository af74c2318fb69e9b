"""Captions name everything; foils are false in one detail."""

import random

from llavakit.data.scenes.captions import LONG_WORDINGS, SHORT_WORDINGS, describe, long_caption, short_caption
from llavakit.data.scenes.records import sample_record
from llavakit.data.scenes.sample import sample_scene
from llavakit.data.scenes.split import HELD_OUT_PAIRS


def test_every_wording_names_everything():
    for index in range(150):
        scene = sample_scene(2, index)
        description = describe(scene, random.Random(index))
        captions = [short_caption(description, wording) for wording in range(SHORT_WORDINGS)]
        captions += [long_caption(description, wording) for wording in range(LONG_WORDINGS)]
        for caption in captions:
            assert caption[0].isupper() and caption.endswith(".") and "  " not in caption and "{" not in caption
            for item in scene.items:
                stem = item.name if item.is_written else item.name[:3]
                plural = {"mouse": "mice", "tooth": "teeth", "foot": "feet"}.get(item.name, stem)
                assert stem in caption or plural in caption, (caption, item.name)
                assert item.kind == "thing" or str(item.color) in caption


def test_foils_are_near_and_false():
    for index in range(200):
        record, scene = sample_record("captions", 2, index, "train")
        assert scene is not None
        true = record["conversations"][1]["value"]
        assert len(record["foils"]) == 2 and len({true, *record["foils"]}) == 3
        assert record["objects"] == [item.name for item in scene.items]
        for foil in record["foils"]:
            changed = set(foil.split()) ^ set(true.split())
            assert len(changed) <= 14, (true, foil)
            assert not any(f" {color} {shape}" in foil for color, shape in HELD_OUT_PAIRS)


def test_records_are_a_function_of_their_numbers():
    for kind in ("captions", "instruct", "talk", "mixed", "language"):
        for split in ("train", "heldout"):
            assert sample_record(kind, 1, 7, split) == sample_record(kind, 1, 7, split)
    assert sample_record("talk", 1, 7, "train")[1] is None and "image" not in sample_record("talk", 1, 7, "train")[0]
