"""Law 6: a picture becomes as many vectors as are counted for it, and each from its place on the canvas."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from llavakit.anyres import num_image_tokens, num_views
from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, TilingConfig, VisionConfig
from llavakit.model import Images, Llava
from llavakit.model.arrange import arrange

SIDE = 2  # patches of a tile, each way
PINPOINTS = ((14, 28), (28, 14), (28, 28), (42, 14), (14, 42), (42, 42))
SIDES = st.integers(1, 3000) | st.integers(1, 65_535)
NEWLINE = torch.full((1,), -1.0)


def config(*, resize_mode: str = "anyres", **tiling: Any) -> LlavaConfig:
    return LlavaConfig(
        vision=VisionConfig(
            image_size=14, patch_size=7, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=2
        ),
        language=LanguageConfig(
            vocab_size=40, hidden_size=24, intermediate_size=32, num_layers=1, num_heads=4, num_kv_heads=4, head_dim=6
        ),
        tokens=SpecialTokens(image=39),
        resize_mode=resize_mode,
        tiling=TilingConfig(**{"pinpoints": PINPOINTS, **tiling}),
    )


def numbered(size: tuple[int, int], config: LlavaConfig) -> Tensor:
    """Features that say which they are."""
    num = num_views(*size, config)
    return torch.arange(num * SIDE**2, dtype=torch.float32).reshape(num, SIDE**2, 1)


def arranged(size: tuple[int, int], config: LlavaConfig) -> list[int]:
    newline = NEWLINE if config.tiling.with_newline else None
    return arrange(numbered(size, config), size, config, newline).flatten().int().tolist()


@given(
    width=SIDES,
    height=SIDES,
    merge=st.sampled_from(["flat", "spatial", "spatial_unpad"]),
    compat=st.sampled_from(["original", "hf"]),
    max_tiles=st.none() | st.integers(1, 9),
    resize_mode=st.sampled_from(["anyres", "anyres", "pad"]),
)
@settings(deadline=None, max_examples=1000)
def test_as_many_as_counted(
    width: int, height: int, merge: str, compat: Any, max_tiles: int | None, resize_mode: str
) -> None:
    bound = max_tiles if merge == "spatial_unpad" else None
    whole = config(merge=merge, compat=compat, max_tiles=bound, resize_mode=resize_mode)
    assert len(arranged((width, height), whole)) == num_image_tokens(width, height, whole)


def test_flat_is_tile_behind_tile() -> None:
    assert arranged((28, 28), config(merge="flat")) == list(range(20))


def test_spatial_is_row_by_row_across_tiles() -> None:
    rows = [[4, 5, 8, 9], [6, 7, 10, 11], [12, 13, 16, 17], [14, 15, 18, 19]]
    assert arranged((28, 28), config(merge="spatial")) == [0, 1, 2, 3, *sum(rows, [])]


def test_a_newline_ends_each_row_and_what_is_around_the_picture_goes() -> None:
    assert arranged((28, 14), config()) == [0, 1, 2, 3, *[4, 5, 8, 9, -1], *[6, 7, 10, 11, -1]]
    # A canvas of 4 x 4 patches, of which the picture covers the two rows in the middle.
    whole = config(pinpoints=[(28, 28)])
    assert arranged((28, 14), whole) == [0, 1, 2, 3, *[6, 7, 10, 11, -1], *[12, 13, 16, 17, -1]]


def test_one_view_ends_with_one_newline() -> None:
    assert arranged((100, 7), config(resize_mode="pad")) == [0, 1, 2, 3, -1]
    assert arranged((100, 7), config(resize_mode="pad", merge="spatial")) == [0, 1, 2, 3]


def test_a_picture_may_be_too_thin_to_leave_anything_on_its_canvas() -> None:
    assert arranged((3000, 1), config(compat="hf")) == [0, 1, 2, 3]


def test_a_large_canvas_is_pooled_bilinearly() -> None:
    size, whole = (42, 42), config(max_tiles=2)
    views = numbered(size, whole)
    plain = arrange(views, size, config(merge="spatial"), None)[SIDE**2 :].reshape(1, 1, 6, 6)
    pooled = F.interpolate(plain, (2, 2), mode="bilinear").flatten().tolist()
    ours = arrange(views, size, whole, NEWLINE)[SIDE**2 :].flatten().tolist()
    assert ours == [*pooled[:2], -1, *pooled[2:], -1]


@pytest.mark.parametrize("size", [(42, 42), (300, 200), (40, 90), (13, 200), (5, 5)])
def test_pooling_equals_transformers(size: tuple[int, int]) -> None:
    """LLaVA-OneVision's way with one picture, of which nothing but this is read here."""
    whole = config(compat="hf", max_tiles=1)
    pinpoints = [[height, width] for width, height in PINPOINTS]
    theirs = SimpleNamespace(
        config=SimpleNamespace(
            vision_config=SimpleNamespace(image_size=14, patch_size=7), image_grid_pinpoints=pinpoints
        )
    )
    views = torch.randn(num_views(*size, whole), SIDE**2, 3, generator=torch.Generator().manual_seed(0))
    newline = torch.full((3,), -1.0)
    [expected], _ = LlavaOnevisionModel.pack_image_features(
        theirs, [views], [size[::-1]], image_newline=newline, vision_aspect_ratio="anyres_max_1"
    )
    assert torch.equal(arrange(views, size, whole, newline), expected)


@pytest.fixture
def model() -> Llava:
    torch.manual_seed(0)
    model = Llava(config()).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


def test_several_pictures_are_arranged_each_by_its_size(model: Llava) -> None:
    sizes = [(28, 28), (90, 10), (10, 90)]
    counts = [num_views(*size, model.config) for size in sizes]
    pixels = torch.randn(sum(counts), 3, 14, 14)
    with torch.inference_mode():
        together = model.encode_images(Images(pixels=pixels, sizes=sizes))
        features = model.vision(pixels)
        assert torch.equal(model.encode_images(Images(features=features, sizes=sizes)), together)
        alone = [
            model.encode_images(Images(pixels=views, sizes=[size]))
            for views, size in zip(pixels.split(counts), sizes, strict=True)
        ]
    torch.testing.assert_close(torch.cat(alone), together)


@pytest.mark.parametrize("sizes", [(), [(28, 14)], [(28, 28), (28, 28)]])
def test_other_sizes_than_views_are_refused(model: Llava, sizes: Any) -> None:
    with pytest.raises(ValueError, match=r"have \d+ views, but there are 5: Images needs the"):
        model.encode_images(Images(pixels=torch.zeros(5, 3, 14, 14), sizes=sizes))


def test_the_newline_is_a_parameter_only_where_it_is_used(model: Llava) -> None:
    pixels, size = torch.randn(3, 3, 14, 14), (28, 14)
    model.encode_images(Images(pixels=pixels, sizes=[size])).sum().backward()
    assert torch.equal(model.image_newline.grad, torch.full((24,), 2.0))
    for without in (config(merge="spatial"), config().model_copy(update={"tiling": None, "resize_mode": "pad"})):
        assert "image_newline" not in Llava(without).state_dict()
