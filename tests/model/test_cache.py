"""Law 2: cached decoding equals uncached, however the tokens are cut into steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig
from llavakit.model import Images, KVCache, Llava

LENGTH = 24
CONFIG = LlavaConfig(
    vision=VisionConfig(image_size=14, patch_size=7, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=2),
    language=LanguageConfig(
        vocab_size=40,
        hidden_size=24,
        intermediate_size=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=6,
        max_positions=64,
    ),
    tokens=SpecialTokens(image=39),
)


@pytest.fixture(scope="module")
def model() -> Llava:
    torch.manual_seed(0)
    model = Llava(CONFIG).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


@settings(deadline=None, max_examples=40)
@given(cuts=st.sets(st.integers(1, LENGTH - 1)))
def test_any_cut_equals_one_pass(model: Llava, cuts: set[int]) -> None:
    embeds = torch.randn(2, LENGTH, 24, generator=torch.Generator().manual_seed(1))
    cache = KVCache(CONFIG.language, capacity=LENGTH, batch=2)
    bounds = [0, *sorted(cuts), LENGTH]
    with torch.inference_mode():
        whole = model.language(embeds, positions(embeds))
        parts = [
            model.language(embeds[:, start:end], positions(embeds)[:, start:end], cache)
            for start, end in zip(bounds, bounds[1:], strict=False)
        ]
    assert cache.length == LENGTH
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=40)
@given(cuts=st.sets(st.integers(1, LENGTH - 1)))
def test_tokens_that_count_for_several_do_so_from_the_cache(model: Llava, cuts: set[int]) -> None:
    embeds = torch.randn(2, LENGTH, 24, generator=torch.Generator().manual_seed(1))
    bias, cache = torch.zeros(2, LENGTH), KVCache(CONFIG.language, capacity=LENGTH, batch=2)
    bias[0, 4:9], bias[1, 7:9] = 1.5, 3.0
    bounds = [0, *sorted(cuts), LENGTH]
    with torch.inference_mode():
        whole = model.language(embeds, positions(embeds), bias=bias)
        parts = []
        for start, end in zip(bounds, bounds[1:], strict=False):
            here = bias[:, start:end] if bias[:, start:end].any() else None
            parts.append(model.language(embeds[:, start:end], positions(embeds)[:, start:end], cache, here))
        plain = model.language(embeds, positions(embeds))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole[0, :4], plain[0, :4], atol=1e-5, rtol=0)
    assert (whole[0, 9:] - plain[0, 9:]).norm() > 0.01 * plain[0, 9:].norm()


def test_what_is_forgotten_counts_for_nothing(model: Llava) -> None:
    embeds = torch.randn(1, LENGTH, 24, generator=torch.Generator().manual_seed(2))
    cache = KVCache(CONFIG.language, capacity=LENGTH)
    with torch.inference_mode():
        model.language(embeds, positions(embeds), cache, torch.full((1, LENGTH), 2.0))
        cache.truncate(0)
        again, whole = (model.language(embeds, positions(embeds), kept) for kept in (cache, None))
    assert torch.equal(again, whole)


def test_a_forgotten_tail_leaves_no_trace(model: Llava) -> None:
    embeds = torch.randn(1, LENGTH, 24, generator=torch.Generator().manual_seed(2))
    cache = KVCache(CONFIG.language, capacity=LENGTH)
    keep = 10
    with torch.inference_mode():
        model.language(embeds.flip(1), positions(embeds), cache)
        cache.truncate(0)
        model.language(embeds[:, :keep], positions(embeds)[:, :keep], cache)
        model.language(embeds.flip(1)[:, keep:], positions(embeds)[:, keep:], cache)
        cache.truncate(keep)
        again = model.language(embeds[:, keep:], positions(embeds)[:, keep:], cache)
        whole = model.language(embeds, positions(embeds))
    torch.testing.assert_close(again, whole[:, keep:], atol=1e-5, rtol=0)


def test_a_picture_in_the_middle_of_a_cached_conversation(model: Llava) -> None:
    picture = torch.randn(1, 3, 14, 14, generator=torch.Generator().manual_seed(3))
    tokens = torch.tensor([[1, 5, 6, *[39] * CONFIG.vision.num_features, 7, 8, 9]])
    before = 3
    cache = KVCache(CONFIG.language, capacity=tokens.shape[1])
    with torch.inference_mode():
        whole = model(tokens, Images(pixels=picture), positions(tokens))
        model(tokens[:, :before], None, positions(tokens)[:, :before], cache)
        rest = model(tokens[:, before:], Images(pixels=picture), positions(tokens)[:, before:], cache)
    torch.testing.assert_close(rest, whole[:, before:], atol=1e-5, rtol=0)


def test_more_tokens_than_room_is_a_fault_of_the_caller(model: Llava) -> None:
    embeds = torch.zeros(1, 4, 24)
    with pytest.raises(AssertionError, match="4 tokens do not fit in a cache of 3"):
        model.language(embeds, positions(embeds), KVCache(CONFIG.language, capacity=3))


def positions(rows: Tensor) -> Tensor:
    return torch.arange(rows.shape[1]).expand(rows.shape[0], -1)
