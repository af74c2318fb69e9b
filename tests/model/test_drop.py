"""Tokens dropped between two layers, against transformers' own layers run one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from llavakit.anyres import PartlyKept
from llavakit.checkpoint.weights import load_model
from llavakit.config import LanguageConfig
from llavakit.model import KVCache, LanguageModel
from llavakit.model.drop import Drop, attention_of, staying

LENGTH, PICTURES = 40, [(3, 19, 5), (22, 38, 2)]
WHOLE = [(first, end, end - first) for first, end, _ in PICTURES]


def theirs(model: Any, embeds: Tensor, after: int, pictures: Sequence[PartlyKept], asker: int) -> tuple[Tensor, list]:
    """FastV by transformers: its attention weights, then its later layers over those that stay; (states, who stay)."""
    seen = model(inputs_embeds=embeds, output_attentions=True, output_hidden_states=True)
    weights = seen.attentions[after - 1][0, :, asker].mean(0)
    gone = set()
    for first, end, count in pictures:
        gone |= set(sorted(range(first, end), key=lambda at: float(weights[at]), reverse=True)[count:])
    stay = [at for at in range(embeds.shape[1]) if at not in gone]
    states, positions = seen.hidden_states[after][:, stay], torch.tensor([stay])
    angles = model.rotary_emb(states, positions)
    causal = torch.full((len(stay), len(stay)), -torch.inf).triu(1)[None, None]
    for layer in model.layers[after:]:
        found = layer(states, attention_mask=causal, position_ids=positions, position_embeddings=angles)
        states = found[0] if isinstance(found, tuple) else found
    return model.norm(states), stay


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("text", [{}, {"num_key_value_heads": 2}], ids=["plain", "grouped"])
@pytest.mark.parametrize("asker", [LENGTH - 1, LENGTH - 2])
def test_hidden_states_equal_transformers(
    build: Callable[..., Any], after: int, text: dict[str, Any], asker: int
) -> None:
    """The last token asks, or one that an answer already stands behind."""
    oracle, folder = build(text={"num_hidden_layers": 4} | text)
    embeds = torch.randn(1, LENGTH, 48, generator=torch.Generator().manual_seed(after))
    language = load_model(folder).language
    with torch.inference_mode():
        expected, stay = theirs(oracle.model.language_model, embeds, after, PICTURES, asker)
        found = language(embeds, torch.arange(LENGTH)[None], drop=Drop(after, PICTURES, asker))
    assert len(stay) == LENGTH - 25
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


CONFIG = LanguageConfig(
    vocab_size=40, hidden_size=24, intermediate_size=32, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=6
)


@pytest.fixture(scope="module")
def language() -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(CONFIG).eval().requires_grad_(False)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return model


@pytest.mark.parametrize("after", [1, 2])
def test_to_keep_all_is_to_drop_nothing(language: LanguageModel, after: int) -> None:
    embeds, positions = torch.randn(1, LENGTH, 24), torch.arange(LENGTH)[None]
    assert torch.equal(language(embeds, positions, drop=Drop(after, WHOLE)), language(embeds, positions))
    assert torch.equal(language(embeds, positions, drop=Drop(after)), language(embeds, positions))


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("after", [1, 2])
def test_cached_equals_uncached(language: LanguageModel, after: int, before: int) -> None:
    """Words, then what has the pictures, then an answer in steps; the later layers' cache is shorter."""
    torch.manual_seed(1)
    embeds, positions = torch.randn(1, LENGTH + 6, 24), torch.arange(LENGTH + 6)[None]
    whole = language(embeds, positions, drop=Drop(after, PICTURES, asker=LENGTH - 1))
    cache, later = (KVCache(CONFIG, capacity=LENGTH + 6) for _ in range(2))
    shifted = [(first - before, end - before, count) for first, end, count in PICTURES]
    parts = []
    for start, end in [(0, before), (before, LENGTH), (LENGTH, LENGTH + 1), (LENGTH + 1, LENGTH + 6)]:
        drop = Drop(after, shifted if start == before and end > before else (), cache=later)
        if end > start:
            parts.append(language(embeds[:, start:end], positions[:, start:end], cache, drop=drop))
    assert (cache.length, later.length) == (LENGTH + 6, LENGTH + 6 - 25)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=0)


def test_of_equals_the_first_stay() -> None:
    attention = torch.tensor([0.0, 0.2, 0.2, 0.1, 0.2, 0.3, 0.0, 0.2, 0.2])
    assert staying(attention, [(1, 6, 3), (6, 9, 1)]).tolist() == [0, 1, 2, 5, 7]
    assert staying(attention, []).tolist() == list(range(9))


def test_attention_is_the_mean_over_heads_in_float32() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(4, 5, 6).bfloat16(), torch.randn(2, 9, 6).bfloat16()  # of 5 new tokens behind 4 others
    for asker, seen in ((-1, 9), (2, 7)):
        expected = torch.zeros(9)
        for head in range(4):
            scores = keys[head // 2, :seen].float() @ queries[head, asker].float() / 6**0.5
            expected[:seen] += torch.softmax(scores, -1) / 4
        found = attention_of(asker, queries, keys)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected[4:])
