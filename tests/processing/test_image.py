"""Pictures against the published numbers, and every kind of file against a plain picture of the same content."""

from __future__ import annotations

import io
import json
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from safetensors.numpy import load_file

from llavakit.config import SIGLIP_MEAN, SIGLIP_STD, VisionConfig
from llavakit.processing import ImageError, open_image, preprocess
from llavakit.processing.image import view_of

LAW = settings(max_examples=40, deadline=None)  # no timed assertions

SEED = np.random.default_rng(3)


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return SEED.integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


# Published numbers


@pytest.mark.parametrize(
    ("name", "size", "mode"), [("v1-linear", 56, "square"), ("v15-mlp", 84, "pad")], ids=["square", "pad"]
)
def test_pixels_equal_the_original(name: str, size: int, mode: Any, fixtures: Path) -> None:
    cases = json.loads((fixtures / "cases" / f"{name}.json").read_text())
    golden = load_file(fixtures / "cases" / f"{name}.safetensors")
    compared = 0
    for record in cases["images"]:
        key = f"image.{record['name']}.pixel_values"
        if key not in golden:
            continue
        image = Image.open(fixtures / record["file"]).convert("RGB")  # as the original: no EXIF, alpha dropped
        ours = preprocess(image, VisionConfig(image_size=size), mode)
        np.testing.assert_allclose(ours, golden[key].reshape(ours.shape), rtol=0, atol=1e-6, err_msg=record["file"])
        compared += 1
    assert compared >= 3


@pytest.mark.parametrize(
    ("name", "mode"), [("llava-llama", "square"), ("llava-mistral-dopad", "pad")], ids=["square", "pad"]
)
def test_pixels_equal_hugging_face(name: str, mode: Any, fixtures: Path, compared: Any) -> None:
    about = {"subject": f"llava-hf, {name}", "stage": "pixels", "oracle": "transformers 4.57.1"}
    golden = load_file(fixtures / "hf" / "cases" / f"{name}.safetensors")
    seen = 0
    for case in json.loads((fixtures / "hf" / "cases" / f"{name}.json").read_text())["cases"]:
        theirs = golden.get(f"case.{case['name']}.pixel_values")
        if theirs is None or len(case["images"]) != len(theirs):
            continue
        for path, expected in zip(case["images"], theirs, strict=True):
            image = Image.open(fixtures / path).convert("RGB")
            ours = preprocess(image, VisionConfig(image_size=expected.shape[-1]), mode)
            compared.close(ours, expected, atol=1e-6, **about)
            seen += 1
    assert seen >= 3


@pytest.mark.parametrize("size", [(64, 64), (320, 240), (97, 233), (11, 150), (20, 23), (300, 41)])
def test_square_equals_the_clip_processor(size: tuple[int, int]) -> None:
    from transformers import CLIPImageProcessorPil

    oracle = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    image = Image.fromarray(noise(*size))
    theirs = oracle(image, return_tensors="np")["pixel_values"][0]
    ours = preprocess(image, VisionConfig(image_size=56), "square")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (320, 240), (97, 233), (11, 150), (20, 23), (300, 1)])
def test_stretch_equals_the_siglip_processor(size: tuple[int, int]) -> None:
    from transformers import SiglipImageProcessorPil

    oracle = SiglipImageProcessorPil(size={"height": 56, "width": 56})
    image = Image.fromarray(noise(*size))
    theirs = oracle(image, return_tensors="np")["pixel_values"][0]
    ours = preprocess(image, VisionConfig(image_size=56, image_mean=SIGLIP_MEAN, image_std=SIGLIP_STD), "stretch")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_siglip_pads_with_its_own_grey() -> None:
    vision = VisionConfig(image_size=28, image_mean=SIGLIP_MEAN, image_std=SIGLIP_STD)
    view = preprocess(Image.new("RGB", (28, 14), "white"), vision, "pad")
    np.testing.assert_allclose(view[:, 0], 2 * 127 / 255 - 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(view[:, 14], 1, rtol=0, atol=1e-6)


@given(
    width=st.integers(1, 200), height=st.integers(1, 200), size=st.sampled_from([14, 56, 96]), strip=st.integers(0, 12)
)
@LAW
def test_pad_equals_the_padded_square(width: int, height: int, size: int, strip: int) -> None:
    """The way without the square gives the bytes of the way with it, in strips of any height."""
    from llavakit.processing import image as room

    picture = Image.fromarray(np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), "u1"))
    side = max(width, height)
    canvas = Image.new("RGB", (side, side), (122, 116, 104))
    canvas.paste(picture, ((side - width) // 2, (side - height) // 2))
    expected = canvas.resize((size, size), Image.Resampling.BICUBIC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_STRIP_PIXELS", side << strip)
        got = room._pad(picture, size, (122, 116, 104))
    if height <= 16 * width:
        assert np.array_equal(np.asarray(got), np.asarray(expected))
    else:  # the two steps of the resize are exchanged: noise clipped in between may differ, smooth pictures do not
        flat = room._pad(Image.new("RGB", picture.size, (9, 99, 199)), size, (9, 99, 199))
        assert np.asarray(flat).reshape(-1, 3).tolist() == [[9, 99, 199]] * size * size


@pytest.mark.parametrize("size", [(20000, 3), (3, 20000), (1, 1), (1, 300), (65535, 1), (1, 65535)])
@pytest.mark.parametrize("mode", ["square", "pad", "stretch"])
def test_thin_and_tiny_pictures_become_one_view(size: tuple[int, int], mode: Any) -> None:
    vision = VisionConfig(image_size=56)
    colour = tuple(int(255 * mean) for mean in vision.image_mean)
    view = preprocess(Image.new("RGB", size, colour), vision, mode)
    assert view.shape == (3, 56, 56)
    assert view.dtype == np.float32
    assert np.ptp(view, axis=(1, 2)).max() == 0  # one colour in, one colour out


@pytest.mark.parametrize("turned", [False, True])
def test_a_thin_picture_is_cut_where_clip_cuts_it(turned: bool) -> None:
    ramp = np.tile(np.linspace(0, 255, 1000).astype(np.uint8)[None, :, None], (20, 1, 3))
    picture = Image.fromarray(ramp.transpose(1, 0, 2) if turned else ramp)
    width, height = picture.size
    long = int(28 * 1000 / 20)
    resized = picture.resize((28, long) if turned else (long, 28), Image.Resampling.BICUBIC)
    left, top = (resized.width - 28) // 2, (resized.height - 28) // 2
    expected = np.asarray(resized.crop((left, top, left + 28, top + 28)), dtype=np.float64) / 255
    vision = VisionConfig(image_size=28, image_mean=(0, 0, 0), image_std=(1, 1, 1))
    assert np.abs(preprocess(picture, vision, "square").transpose(1, 2, 0) - expected).max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize("mode", ["square", "pad", "stretch"])
@pytest.mark.parametrize("size", [(60, 60), (90, 60), (60, 90), (61, 97), (200, 60)])
def test_points_are_where_the_view_says(mode: Any, size: tuple[int, int]) -> None:
    """A white spot in the middle of a black picture, a third of the way to a corner, is found again in its view."""
    vision = VisionConfig(image_size=48, patch_size=12, hidden_size=8, num_heads=2)
    (width, height), short = size, min(size)
    x, y = width / 2 + short / 6, height / 2 - short / 6
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), (round(x) - 3, round(y) - 3, round(x) + 3, round(y) + 3))
    seen = preprocess(image, vision, mode).sum(0)
    row, column = np.unravel_index(seen.argmax(), seen.shape)
    across, down, x_shift, y_shift = view_of(*size, 48, mode)
    assert abs(round(x) * across + x_shift - column - 0.5) <= 1.5 + 3 * across
    assert abs(round(y) * down + y_shift - row - 0.5) <= 1.5 + 3 * down


def test_preprocess_takes_rgb_only() -> None:
    with pytest.raises(ValueError, match="not mode 'L'; open_image makes one"):
        preprocess(Image.new("L", (2, 2)), VisionConfig(), "pad")


# Kinds of picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_upright(orientation: int, kind: str) -> None:
    picture = Image.new("RGB", (32, 16), "white")
    picture.paste("red", (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    seen = open_image(encoded(picture, kind, exif=exif, **options))
    # What a camera means by each number: how to turn the stored rows to see the scene.
    transpose = Image.Transpose
    turn = [
        None,
        transpose.FLIP_LEFT_RIGHT,
        transpose.ROTATE_180,
        transpose.FLIP_TOP_BOTTOM,
        transpose.TRANSPOSE,
        transpose.ROTATE_270,
        transpose.TRANSVERSE,
        transpose.ROTATE_90,
    ][orientation - 1]
    expected = picture if turn is None else picture.transpose(turn)
    assert np.abs(pixels_of(seen).astype(int) - pixels_of(expected)).max() <= (20 if kind == "JPEG" else 0)
    assert pixels_of(open_image(seen)).tolist() == pixels_of(seen).tolist()  # not turned twice


def test_unreadable_exif_does_not_cost_the_picture() -> None:
    picture = Image.new("RGB", (3, 2), "blue")
    for notes in (b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b""):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of corrupt EXIF
            assert open_image(encoded(picture, "JPEG", exif=notes)).size == (3, 2)


def test_alpha_lies_over_white() -> None:
    rgba = noise(9, 7, 4)
    rgba[0, 0] = (10, 20, 30, 0)
    rgba[0, 1] = (10, 20, 30, 255)
    seen = pixels_of(open_image(encoded(Image.fromarray(rgba))))
    alpha = rgba[..., 3:] / 255
    assert np.abs(seen - (rgba[..., :3] * alpha + 255 * (1 - alpha))).max() <= 1
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert seen[0, 1].tolist() == [10, 20, 30]


@pytest.mark.parametrize("mode", ["LA", "PA", "La", "RGBa"])
def test_other_modes_with_alpha(mode: str) -> None:
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 0, 255))
    source = clear.convert("LA").convert("La") if mode == "La" else clear.convert(mode)
    assert pixels_of(open_image(source)).tolist() == [[[255] * 3, [0] * 3]]


def test_palette_with_one_clear_colour_and_with_many() -> None:
    picture = Image.new("P", (3, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.putdata([0, 1, 2])
    assert pixels_of(open_image(encoded(picture))).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    one = open_image(encoded(picture, transparency=1))
    assert pixels_of(one).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    many = open_image(encoded(picture, transparency=b"\x00\xff\x80"))
    assert pixels_of(many).tolist() == [[[255, 255, 255], [0, 255, 0], [127, 127, 255]]]
    gif = open_image(encoded(picture, "GIF", transparency=1))
    assert pixels_of(gif)[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("mode", "clear"), [("L", 7), ("RGB", (7, 7, 7))])
def test_one_clear_colour_without_a_palette(mode: str, clear: Any) -> None:
    picture = Image.new(mode, (2, 1), 0)
    picture.putpixel((0, 0), clear)
    assert pixels_of(open_image(encoded(picture, transparency=clear))).tolist() == [[[255] * 3, [0] * 3]]


def test_grey_and_black_and_white() -> None:
    grey = noise(5, 4, 1)
    assert np.array_equal(pixels_of(open_image(encoded(Image.fromarray(grey)))), np.stack([grey] * 3, axis=-1))
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert pixels_of(open_image(encoded(bits))).tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_their_greys(kind: str) -> None:
    levels = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    seen = pixels_of(open_image(encoded(Image.fromarray(levels), kind)))
    assert seen[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 128, 255]], np.int32), [0, 128, 255]),
        (np.array([[0, 32896, 65535]], np.int32), [0, 128, 255]),
        (np.array([[-100_000, 0, 100_000]], np.int32), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 100, 200]], np.float32), [0, 100, 200]),
        (np.array([[-1, 0, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, np.nan, np.inf, 1]], np.float32), [0, 0, 0, 255]),
        (np.array([[70_000, 70_000]], np.int32), [0, 0]),
        (np.array([[-3.0, -3.0]], np.float32), [0, 0]),
    ],
    ids=[
        "int bytes",
        "int 16",
        "int wide",
        "unit",
        "bytes",
        "signed",
        "not finite",
        "flat and bright",
        "flat and dark",
    ],
)
def test_integers_and_floats_find_their_white(values: np.ndarray, expected: list[int]) -> None:
    seen = pixels_of(open_image(encoded(Image.fromarray(values), "TIFF")))
    assert seen[0, :, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    cmyk = Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK")
    seen = pixels_of(open_image(encoded(cmyk, kind)))
    assert np.abs(seen.astype(int) - [200, 40, 90]).max() <= 4


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB"])
def test_other_colour_spaces(mode: str) -> None:
    picture = Image.new("RGB", (4, 4), (200, 40, 90)).convert(mode)
    assert np.abs(pixels_of(open_image(picture)).astype(int) - [200, 40, 90]).max() <= 4


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    seen = open_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert pixels_of(seen)[0, 0].tolist() == [255, 0, 0]


def test_every_kind_of_source(tmp_path: Path) -> None:
    picture = Image.fromarray(noise(6, 5))
    data = encoded(picture)
    path = tmp_path / "a picture.png"
    path.write_bytes(data)
    for source in (path, str(path), data, io.BytesIO(data), picture, Image.open(path)):
        assert np.array_equal(pixels_of(open_image(source)), pixels_of(picture))
    assert open_image(picture) is picture  # nothing to do, nothing copied
    with path.open("rb") as file:
        assert open_image(file).size == (6, 5)


def test_the_callers_picture_is_left_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(io.BytesIO(encoded(Image.new("RGB", (4, 2)), exif=exif)))
    assert open_image(picture).size == (2, 4)
    assert picture.size == (4, 2)
    assert ImageOps.exif_transpose(picture).size == (2, 4)


# What is no picture


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "looks like a web page"),
        (b'<?xml version="1.0"?>\n<svg xmlns="">', "SVG drawing"),
        (b"<svg></svg>", "SVG drawing"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "a HEIC photo; export it as JPEG"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00", "a video"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "a PostScript document"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "a damaged PNG picture"),
        (b"\xff\xd8\xff\x00", "a damaged JPEG picture"),
        (b"GIF89a", "a damaged GIF picture"),
        (b"RIFF\x00\x00\x00\x00WEBP", "a damaged WebP picture|is broken"),
        (b"II*\x00\x00\x00\x00\x00", "a damaged TIFF picture or a camera's raw file"),
        (b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00", "a damaged AVIF picture"),
        (b"PK\x03\x04zip", "a zip archive"),
        (b"\x1f\x8b\x08\x00", "a compressed archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b'{"id": 1, "image": "a.png"}', "looks like text"),
        (b"\x00\x01\x02\x03", "of a kind that is not known here"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        open_image(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(".")


def test_paths_without_a_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"There is no picture '.*missing\.png'\."):
        open_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="is a folder"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match="is a web address"):
        open_image("https://example.org/cat.png")
    with pytest.raises(ImageError, match="cannot be read"):
        open_image("a\0b.png")


def test_a_pipe_is_a_file_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = encoded(Image.new("RGB", (3, 2)))
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    assert open_image(pipe).size == (3, 2)
    writer.join()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_file_that_was_cut_off(kind: str) -> None:
    data = encoded(Image.fromarray(noise(64, 64)), kind)
    with pytest.raises(ImageError, match="broken|not an image"):
        open_image(data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA", "ICO"])
@given(data=st.data())
@LAW
def test_a_broken_file_is_a_picture_or_a_sentence(kind: str, data: st.DataObject) -> None:
    good = bytearray(BROKEN[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of corrupt metadata
        try:
            assert open_image(bytes(good)).mode == "RGB"
        except ImageError as error:
            assert str(error).startswith("The picture ")


BROKEN = {
    kind: encoded(Image.fromarray(noise(16, 16)), kind)
    for kind in ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA", "ICO"]
}


def test_a_bomb_is_refused_with_its_size() -> None:
    header = b"P6\n20000 20000\n255\n"
    with pytest.raises(ImageError, match=r"400,000,000 pixels, and at most 178,956,970 are read\.$"):
        open_image(header + b"\0" * 100)


def test_a_large_picture_below_the_limit_gives_no_warning() -> None:
    header = b"P6\n10000 10000\n255\n"  # Pillow would warn from half of its limit on
    with pytest.raises(ImageError, match="broken"):
        open_image(header + b"\0" * 100)


def test_endless_and_empty_pictures_are_refused() -> None:
    with pytest.raises(ImageError, match=r"70000x1 pixels; a side may have at most 65,535\."):
        open_image(Image.new("RGB", (70_000, 1)))
    with pytest.raises(ImageError, match="0x5 pixels: there is nothing to see"):
        open_image(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("size", [(1, 1), (20000, 3)])
def test_the_smallest_and_the_longest_open(size: tuple[int, int]) -> None:
    assert open_image(encoded(Image.new("RGB", size))).size == size
