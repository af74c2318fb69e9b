"""The geometry of tiles: against tables of both public implementations, and its laws for any size."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.anyres import (
    choose_canvas,
    fit,
    num_image_tokens,
    num_kept_tokens,
    num_views,
    partly_kept,
    pooled_grid,
    row_grid,
    tile_grid,
    token_positions,
    unpadded_grid,
)
from llavakit.config import ConfigError, LanguageConfig, LlavaConfig, TilingConfig, VisionConfig, VisualTokens

LAW = settings(deadline=None)  # a busy machine is no failure
NEXT = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
ONEVISION = tuple((384 * columns, 384 * rows) for columns in range(1, 7) for rows in range(1, 7))
LANGUAGE = LanguageConfig(vocab_size=32064)
SIDES = st.integers(1, 65_535)


def config(**tiling: Any) -> LlavaConfig:
    size = tiling.pop("image_size", 336)
    return LlavaConfig(
        vision=VisionConfig(image_size=size, patch_size=14),
        language=LANGUAGE,
        resize_mode="anyres",
        tiling=TilingConfig(**{"pinpoints": NEXT, **tiling}),
    )


def golden_rows(fixtures: Path) -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
    for name, table in json.loads((fixtures / "anyres" / "anyres.json").read_text())["tables"].items():
        table["name"] = name
        if isinstance(table["pinpoints"], str):
            table["pinpoints"] = json.loads(table["pinpoints"])
        for row in table["rows"]:
            yield table, dict(zip(table["columns"], row, strict=True))


def test_every_row_equals_both_implementations(fixtures: Path, compared: Any) -> None:
    oracles = {"original": "haotian-liu/LLaVA c121f04", "hf": "transformers 4.57.1"}
    seen = 0
    for table, row in golden_rows(fixtures):
        size, tile, side = (row["width"], row["height"]), table["tower_size"], table["patches_per_side"]
        readings = {"original": table["pinpoints"], "hf": [pair[::-1] for pair in table["pinpoints"]]}
        for compat, pinpoints in readings.items():
            canvas = choose_canvas(size, [tuple(pair) for pair in pinpoints])
            grid = tile_grid(canvas, tile)
            unpadded = unpadded_grid(size, (grid[0] * side, grid[1] * side), compat)
            ours = {"canvas": canvas, "grid": grid, "unpad": unpadded}
            if compat == "original":
                ours["resized"], ours["paste"] = fit(size, canvas)
            about = {"subject": f"anyres table {table['name']}", "oracle": oracles[compat]}
            axes = {"resized": "wh", "canvas": "wh", "grid": "wh", "unpad": "wh", "paste": "xy"}
            theirs = {name: tuple(row[f"{compat}_{name}_{axis}"] for axis in axes[name]) for name in ours}
            compared.equal(ours, theirs, stage=", ".join(sorted(ours)), **about)
            whole = config(image_size=tile, pinpoints=pinpoints, compat=compat)
            compared.equal(num_image_tokens(*size, whole), row[f"{compat}_tokens"], stage="tokens", **about)
            if compat == "hf":
                assert num_image_tokens(*size, whole) == row["hf_processor_tokens"]
        seen += 1
    assert seen >= 5000


@pytest.mark.parametrize(
    ("size", "original", "hf"),
    [
        ((640, 480), 2340, 2340),
        ((1000, 1000), 2928, 2928),
        ((3000, 200), 868, 868),
        ((300, 200), 976, 1464),  # the two cut small pictures the other way
        ((376, 799), 1826, 1876),  # and round differently
    ],
)
def test_known_counts(size: tuple[int, int], original: int, hf: int) -> None:
    assert num_image_tokens(*size, config()) == original
    swapped = tuple((height, width) for width, height in NEXT)
    assert num_image_tokens(*size, config(pinpoints=swapped, compat="hf")) == hf


@given(width=SIDES, height=SIDES)
@LAW
def test_a_fitted_picture_lies_inside_its_canvas_and_touches_it(width: int, height: int) -> None:
    canvas = choose_canvas((width, height), NEXT)
    fitted, offset = fit((width, height), canvas)
    assert canvas in NEXT
    assert fitted[0] == canvas[0] or fitted[1] == canvas[1]
    for inside, whole, before in zip(fitted, canvas, offset, strict=True):
        assert 1 <= inside <= whole
        assert before == (whole - inside) // 2


@given(width=SIDES, height=SIDES, compat=st.sampled_from(["original", "hf"]))
@LAW
def test_as_many_patches_go_on_either_side(width: int, height: int, compat: Any) -> None:
    canvas = tile_grid(choose_canvas((width, height), NEXT), 336)
    grid = canvas[0] * 24, canvas[1] * 24
    unpadded = unpadded_grid((width, height), grid, compat)
    assert unpadded[0] == grid[0] or unpadded[1] == grid[1]
    assert all(0 <= kept <= whole and (whole - kept) % 2 == 0 for kept, whole in zip(unpadded, grid, strict=True))


def test_the_first_pinpoint_wins_a_tie() -> None:
    assert choose_canvas((100, 100), [(336, 672), (672, 336)]) == (336, 672)
    assert choose_canvas((100, 100), [(672, 336), (336, 672)]) == (672, 336)


def test_a_large_canvas_is_pooled() -> None:
    """LLaVA-OneVision's: at most about nine tiles of 27 x 27 patches."""
    onevision = config(image_size=384, pinpoints=ONEVISION, max_tiles=9)
    assert num_image_tokens(100, 100, onevision) == 729 + 27 * 28
    assert row_grid((2304, 2304), onevision.vision, onevision.tiling) == ((162, 162), (81, 81))
    assert num_image_tokens(2304, 2304, onevision) == 729 + 81 * 82
    assert pooled_grid((89, 89), 9 * 729) == (89, 89), "a small excess is left alone"
    assert pooled_grid((0, 162), 9 * 729) == (0, 162)


@given(columns=st.integers(0, 162), rows=st.integers(0, 162), max_tiles=st.integers(1, 9))
@LAW
def test_pooling_leaves_something(columns: int, rows: int, max_tiles: int) -> None:
    pooled = pooled_grid((columns, rows), max_tiles * 729)
    assert (pooled[0] > 0, pooled[1] > 0) == (columns > 0, rows > 0)
    assert pooled[0] * pooled[1] <= 1.1**2 * max_tiles * 729


def test_other_merge_modes_keep_every_patch() -> None:
    for merge in ("flat", "spatial"):
        assert num_image_tokens(640, 480, config(merge=merge)) == 5 * 576
    assert num_views(640, 480, config()) == 5


def test_onevision_counts_as_transformers_does(compared: Any) -> None:
    from transformers import LlavaOnevisionImageProcessorPil, LlavaOnevisionProcessor

    oracle = object.__new__(LlavaOnevisionProcessor)  # without a tokenizer, which counts nothing
    oracle.image_processor = SimpleNamespace(image_grid_pinpoints=LlavaOnevisionImageProcessorPil.image_grid_pinpoints)
    oracle.num_image_tokens, oracle.vision_aspect_ratio = 729, "anyres_max_9"
    pinpoints = [pair[::-1] for pair in LlavaOnevisionImageProcessorPil.image_grid_pinpoints]
    ours = config(pinpoints=pinpoints, image_size=384, max_tiles=9, only_alone=True, compat="hf")
    chance = random.Random(0)
    for _ in range(300):
        width, height = (round(2 ** chance.uniform(0, 12)) for _ in "wh")
        theirs = oracle._get_number_of_features(height, width, 384, 384)
        about = {
            "subject": "anyres, LLaVA-OneVision",
            "stage": "number of tokens",
            "oracle": "transformers as installed",
        }
        compared.equal(num_image_tokens(width, height, ours), theirs, **about)


def test_only_a_picture_that_is_alone_is_cut() -> None:
    onevision = config(pinpoints=ONEVISION, image_size=384, max_tiles=9, only_alone=True)
    assert onevision.for_pictures(1) == onevision == onevision.for_pictures(0)
    several = onevision.for_pictures(2)
    assert (num_views(640, 480, several), num_image_tokens(640, 480, several)) == (1, 730)
    assert config().for_pictures(2) == config()


@pytest.mark.parametrize("mode", ["square", "pad", "stretch"])
def test_one_view_is_as_many_tokens_whatever_its_size(mode: Any) -> None:
    single = LlavaConfig(language=LANGUAGE, resize_mode=mode)
    assert {num_image_tokens(*size, single) for size in [(1, 1), (640, 480), (9, 4000)]} == {576}
    newline = LlavaConfig(language=LANGUAGE, resize_mode=mode, tiling=TilingConfig(pinpoints=NEXT))
    assert num_image_tokens(640, 480, newline) == 577
    assert num_views(640, 480, newline) == 1


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_no_area_is_no_picture(size: tuple[int, int]) -> None:
    for count in (num_image_tokens, num_views):
        with pytest.raises(ValueError, match="has no area"):
            count(*size, config())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tiling": None}, "tiling has to say into which"),
        ({"tiling": {"pinpoints": []}}, "tiling.pinpoints"),
        ({"tiling": {"pinpoints": [[336, 0]]}}, "not all pairs of positive numbers"),
        ({"tiling": {"pinpoints": [[336, 500]]}}, r"\[\(336, 500\)\] are no whole number of tiles of 336x336"),
        ({"tiling": {"pinpoints": NEXT, "merge": "flat", "max_tiles": 9}}, "max_tiles bounds merge 'spatial_unpad'"),
        ({"tiling": {"pinpoints": NEXT, "marge": "flat"}}, "'tiling.marge': did you mean 'merge'"),
        ({"vision": {"feature_select": "full"}}, "the class feature has no place"),
    ],
)
def test_a_tiling_that_cannot_be_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        LlavaConfig.parse({"language": LANGUAGE, "resize_mode": "anyres", "tiling": {"pinpoints": NEXT}} | change)


@LAW
@given(
    width=SIDES, height=SIDES, count=st.integers(1, 576), merge=st.sampled_from(["flat", "spatial", "spatial_unpad"])
)
def test_fewer_visual_tokens_are_as_many_for_every_view(width: int, height: int, count: int, merge: str) -> None:
    some = config(merge=merge).with_visual_tokens(VisualTokens(count=count))
    assert num_image_tokens(width, height, some) == num_views(width, height, some) * count


@LAW
@given(parts=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), max_size=4), count=st.integers(1, 9))
def test_positions_are_those_of_whole_pictures(parts: list[tuple[int, int]], count: int) -> None:
    some = LlavaConfig(vision=VisionConfig(image_size=42, patch_size=14), language=LANGUAGE)
    some = some.with_visual_tokens(VisualTokens(count=count))
    expected, spans, position = [0], [], 1
    for text, views in parts:
        expected += range(position, position + text)
        position += text
        spans.append((len(expected), len(expected) + views * count))
        for _ in range(views):
            expected += [position] * count
            position += 9  # patches of a view
    expected.append(position)
    assert token_positions(len(expected), spans, some) == expected
    whole = some.with_visual_tokens(None)
    assert token_positions(len(expected), spans, whole) == list(range(len(expected)))


@pytest.mark.parametrize(
    ("vision", "wanted", "said"),
    [
        ({}, {"count": 577}, "577 visual tokens are more than the 576 patches of a view: ask for 1 to 576"),
        ({}, {"count": 100, "method": "pool"}, "pooling gives 576, 144, 64, 36, 16, 9, 4, 1; use one of these"),
        ({"feature_select": "full"}, {"count": 9}, "this model reads the class feature too"),
        ({"feature_layer": 0}, {"count": 9}, "where nothing attends: use method 'pool'"),
        ({}, {"count": 577, "after_layer": 3}, "577 visual tokens are more than the 576 of a view: ask for 1 to 576"),
        ({}, {"count": 9, "after_layer": 32}, "after layer 32 of 32 nothing reads what is left: .* layer 1 to 31 of"),
    ],
)
def test_visual_tokens_that_cannot_be(vision: dict[str, Any], wanted: dict[str, Any], said: str) -> None:
    whole = LlavaConfig(vision=VisionConfig(**vision), language=LANGUAGE)
    with pytest.raises(ConfigError, match=said):
        whole.with_visual_tokens(VisualTokens(**wanted))


def test_dropping_that_says_nothing_or_two_things() -> None:
    with pytest.raises(ConfigError, match="after layer 1 by attention, not by method 'pool': leave out one of the two"):
        VisualTokens.parse({"count": 4, "method": "pool", "after_layer": 1})
    with pytest.raises(ConfigError, match="after_layer is 0: input should be greater than 0"):
        VisualTokens.parse({"count": 4, "after_layer": 0})
    for layers, said in ((1, "this language model has only one"), (2, "drop visual tokens after layer 1 of this")):
        small = LlavaConfig(language=LANGUAGE.model_copy(update={"num_layers": layers}))
        with pytest.raises(ConfigError, match=said):
            small.with_visual_tokens(VisualTokens(count=4, after_layer=layers))


@LAW
@given(
    width=SIDES, height=SIDES, count=st.integers(1, 576), merge=st.sampled_from(["flat", "spatial", "spatial_unpad"])
)
def test_what_is_dropped_later_is_read_at_first(width: int, height: int, count: int, merge: str) -> None:
    whole = config(merge=merge)
    some = whole.with_visual_tokens(VisualTokens(count=count, after_layer=2))
    all_tokens = num_image_tokens(width, height, whole)
    assert num_image_tokens(width, height, some) == num_kept_tokens(width, height, whole) == all_tokens
    assert num_kept_tokens(width, height, some) == min(all_tokens, num_views(width, height, whole) * count)
    span = (2, 2 + all_tokens)
    assert partly_kept([span], [(width, height)], whole) == []
    assert partly_kept([span], [(width, height)], some) == [(*span, num_kept_tokens(width, height, some))]
    assert token_positions(all_tokens + 5, [span], some) == list(range(all_tokens + 5))


def test_visual_tokens_are_never_stored() -> None:
    whole = LlavaConfig(language=LANGUAGE)
    assert whole.with_visual_tokens(VisualTokens(count=9)).model_dump() == whole.model_dump()
    assert "visual_tokens" not in whole.model_dump()
