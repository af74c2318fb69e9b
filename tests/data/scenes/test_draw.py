"""Pictures: the right colours at the right places, and written whole or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from llavakit.data.scenes import draw, fonts, sample_scene, write_scenes
from llavakit.data.scenes import write as writing
from llavakit.data.scenes.vocabulary import SHAPES


def _installed() -> bool:
    try:
        fonts.font(fonts.EMOJI, 109)
        fonts.font("dejavu-sans", 20)
    except FileNotFoundError:
        return False
    return True


needs_fonts = pytest.mark.skipif(not _installed(), reason="the fonts that pictures are drawn with are not installed")


def _with_shapes_only(count):
    scenes = (sample_scene(9, index) for index in range(400))
    return [scene for scene in scenes if all(item.kind == "shape" for item in scene.items)][:count]


def test_a_filled_shape_has_its_colour_in_its_middle():
    for scene in _with_shapes_only(60):
        picture = draw(scene)
        assert picture.size == (scene.width, scene.height) and picture.mode == "RGB"
        for item in scene.items:
            if item.style != "hollow" and item.name not in ("heart", "arrow", "triangle") and not item.wobble:
                x, y = item.center
                assert picture.getpixel((int(x), int(y))) == item.rgb


def test_the_same_scene_gives_the_same_picture():
    for scene in _with_shapes_only(10):
        assert draw(scene).tobytes() == draw(scene).tobytes()


def test_every_shape_fills_its_box_and_no_more():
    scene = next(s for s in _with_shapes_only(60) if len(s.items) == 1 and s.background.kind == "plain")
    seen = set()
    for other in _with_shapes_only(100):
        item = other.items[0]
        alone = replace(scene, width=other.width, height=other.height, items=(item,), background=scene.background)
        if item.rgb == scene.background.colors[0]:
            continue
        found = ImageChops.difference(draw(alone), draw(replace(alone, items=()))).getbbox()
        assert found is not None
        assert max(abs(a - b) for a, b in zip(found, item.box, strict=True)) <= 4
        seen.add(item.name)
    assert seen == set(SHAPES)


def test_a_missing_font_is_a_sentence_that_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(fonts, "_FOLDERS", (tmp_path,))
    fonts._path.cache_clear()
    with pytest.raises(FileNotFoundError, match="apt-get install fonts-noto-color-emoji"):
        fonts._path(fonts.EMOJI)
    fonts._path.cache_clear()


@needs_fonts
def test_written_samples_are_llava_json_and_whole_pictures(tmp_path: Path):
    path = write_scenes(tmp_path, count=12, seed=3, split="train", kind="captions", workers=1)
    records = json.loads(path.read_text())
    assert path == tmp_path / "captions-train.json" and len(records) == 12
    for record in records:
        with Image.open(tmp_path / record["image"]) as picture:
            picture.load()
        assert record["conversations"][0]["value"].startswith("<image>\n")
    again = write_scenes(tmp_path, count=12, seed=3, split="train", kind="captions", workers=1)
    assert json.loads(again.read_text()) == records


@needs_fonts
def test_workers_make_no_difference(tmp_path: Path):
    one = write_scenes(tmp_path / "one", count=6, seed=4, split="heldout", kind="instruct", workers=1)
    two = write_scenes(tmp_path / "two", count=6, seed=4, split="heldout", kind="instruct", workers=2)
    assert one.read_bytes() == two.read_bytes()
    for record in json.loads(one.read_text()):
        assert (one.parent / record["image"]).read_bytes() == (two.parent / record["image"]).read_bytes()


def test_an_interruption_leaves_no_half_file(tmp_path: Path, monkeypatch):
    def full(*_args):
        raise OSError("no space left on device")

    write_scenes(tmp_path, count=3, seed=1, split="train", kind="talk", workers=1)
    before = (tmp_path / "talk-train.json").read_bytes()
    monkeypatch.setattr(writing, "_write_one", full)
    with pytest.raises(OSError):
        write_scenes(tmp_path, count=5, seed=1, split="train", kind="talk", workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["talk-train.json"]
    assert (tmp_path / "talk-train.json").read_bytes() == before
