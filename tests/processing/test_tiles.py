"""Pictures in tiles: what each view shows, against the golden files' reader in transformers and by eye."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavakit.anyres import choose_canvas, num_image_tokens, num_views
from llavakit.config import SIGLIP_MEAN, SIGLIP_STD, LanguageConfig, LlavaConfig, TilingConfig, VisionConfig
from llavakit.processing import Conversation, Processor, preprocess_tiles, train_tokenizer
from llavakit.processing.image import normalise

LAW = settings(max_examples=30, deadline=None)
PINPOINTS = ((28, 56), (56, 28), (56, 56), (84, 28), (28, 84))
VISION = VisionConfig(image_size=28, patch_size=14)
TILING = TilingConfig(pinpoints=PINPOINTS)
TOKENIZER = train_tokenizer(["USER: what is it? ASSISTANT: It is a red circle."] * 9, 300)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8))


def processor(*, vision: VisionConfig = VISION, **change: Any) -> Processor:
    config = LlavaConfig(
        vision=vision,
        language=LanguageConfig(vocab_size=TOKENIZER.size),
        tokens=TOKENIZER.tokens,
        resize_mode="anyres",
        tiling=TILING.model_copy(update=change),
    )
    return Processor(config, TOKENIZER)


@pytest.mark.parametrize("size", [(64, 64), (320, 240), (97, 233), (11, 150), (20, 23), (300, 41), (57, 55), (400, 1)])
def test_views_equal_those_of_transformers(size: tuple[int, int]) -> None:
    from transformers import LlavaNextImageProcessorPil

    oracle = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_grid_pinpoints=[[height, width] for width, height in PINPOINTS],
    )
    image = noise(*size)
    theirs = oracle(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(preprocess_tiles(image, VISION, TILING), theirs, rtol=0, atol=1e-6)


ONEVISION = {"max_tiles": 9, "only_alone": True}
SIGLIP = VISION.model_copy(update={"image_mean": SIGLIP_MEAN, "image_std": SIGLIP_STD})


@pytest.mark.parametrize("sizes", [[(64, 64)], [(320, 240)], [(11, 150)], [(20, 23), (97, 233)], [(300, 41)] * 3])
def test_onevision_cuts_a_picture_that_is_alone(sizes: list[tuple[int, int]], compared: Any) -> None:
    from transformers import LlavaOnevisionImageProcessorPil

    oracle = LlavaOnevisionImageProcessorPil(
        size={"height": 28, "width": 28},
        image_grid_pinpoints=[[height, width] for width, height in PINPOINTS],
        image_mean=SIGLIP_MEAN,
        image_std=SIGLIP_STD,
    )
    images = [noise(*size) for size in sizes]
    theirs = oracle([images], return_tensors="np")["pixel_values"]
    process = processor(vision=SIGLIP, **ONEVISION)
    ours = process(Conversation().ask(*images, "what?"))
    several = "one picture" if len(sizes) == 1 else "several pictures"
    about = {"subject": f"LLaVA-OneVision, {several}", "stage": "pixels", "oracle": "transformers as installed"}
    compared.close(ours.pixels, theirs.reshape(-1, 3, 28, 28), atol=1e-6, **about)
    count = 4 + 1
    assert len(sizes) == 1 or ours.spans == [(begin, begin + count) for begin, _ in ours.spans], (
        "in one view: its patches, and a newline"
    )


def test_tiles_go_row_by_row_behind_the_whole_picture() -> None:
    colours = ["red", "lime", "blue", "white"]
    image = Image.new("RGB", (56, 56))
    for index, colour in enumerate(colours):
        image.paste(colour, (index % 2 * 28, index // 2 * 28, index % 2 * 28 + 28, index // 2 * 28 + 28))
    base, *tiles = preprocess_tiles(image, VISION, TILING)
    for tile, colour in zip(tiles, colours, strict=True):
        plain = np.asarray(Image.new("RGB", (28, 28), colour))
        np.testing.assert_array_equal(tile, normalise(plain, VISION.image_mean, VISION.image_std))
    np.testing.assert_array_equal(base[:, 3, 24], tiles[1][:, 0, 0])


def test_around_the_picture_is_black() -> None:
    views = preprocess_tiles(Image.new("RGB", (84, 10), "white"), VISION, TILING)
    black = normalise(np.zeros((28, 28, 3), np.uint8), VISION.image_mean, VISION.image_std)
    white = normalise(np.full((28, 28, 3), 255, np.uint8), VISION.image_mean, VISION.image_std)
    assert len(views) == 4
    np.testing.assert_array_equal(views[0], white)
    for tile in views[1:]:
        np.testing.assert_array_equal(tile[:, :9], black[:, :9])
        np.testing.assert_array_equal(tile[:, 9:19], white[:, 9:19])
        np.testing.assert_array_equal(tile[:, 19:], black[:, 19:])


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="takes an RGB picture, not mode 'L'; open_image makes one"):
        preprocess_tiles(Image.new("L", (2, 2)), VISION, TILING)


SIZES = st.tuples(st.integers(1, 200), st.integers(1, 200))


@given(sizes=st.lists(SIZES, min_size=1, max_size=3), merge=st.sampled_from(["flat", "spatial", "spatial_unpad"]))
@LAW
def test_placeholders_and_views_are_as_many_as_counted(sizes: list[tuple[int, int]], merge: str) -> None:
    process = processor(merge=merge)
    conversation = Conversation()
    for size in sizes:
        conversation = conversation.ask(Image.new("RGB", size), "what?").answer("It is red.")
    inputs = process(conversation)
    assert inputs.sizes == sizes
    assert [end - start for start, end in inputs.spans] == [num_image_tokens(*size, process.config) for size in sizes]
    assert inputs.tokens.count(process.config.tokens.image) == sum(end - start for start, end in inputs.spans)
    assert len(inputs.pixels) == sum(num_views(*size, process.config) for size in sizes)


def test_the_size_is_that_of_the_upright_picture() -> None:
    lying = Image.new("RGB", (20, 60))
    lying.getexif()[0x0112] = 6
    inputs = processor()(Conversation().ask(lying, "what?"))
    assert inputs.sizes == [(60, 20)]
    canvas = choose_canvas((60, 20), PINPOINTS)
    assert len(inputs.pixels) == 1 + canvas[0] * canvas[1] // 28**2
    assert inputs.pixels.dtype == torch.float32
