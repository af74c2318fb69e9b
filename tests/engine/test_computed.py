"""Laws of the growing cache."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.config import LanguageConfig
from llavakit.engine.computed import STEP, Computed
from llavakit.model import LanguageModel

CONFIG = LanguageConfig(
    vocab_size=8, hidden_size=8, intermediate_size=8, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=4,
    max_positions=1000,
)  # fmt: skip


def new() -> Computed:
    return Computed(CONFIG, dtype=torch.float32, device=torch.device("cpu"))


def put(computed: Computed, keys: list[int]) -> None:
    """What a model does: every layer its keys and values, here the token itself, then the count."""
    computed.expect(list(keys))
    for layer in range(CONFIG.num_layers):
        rows = torch.tensor(keys, dtype=torch.float32)[None, None, :, None].expand(1, 1, len(keys), 4)
        computed.cache.extend(layer, rows + layer, -rows)
    computed.cache.advance(len(keys))


STEPS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200)), max_size=8)


@given(STEPS)
def test_contents_survive_growth_and_rewinding(steps: list[tuple[int, int]]) -> None:
    computed, expected = new(), list[int]()
    for num_new, num_back in steps:
        num_new = min(num_new, CONFIG.max_positions - len(expected))
        put(computed, list(range(num_new)))
        expected += range(num_new)
        keep = max(0, len(expected) - num_back)
        computed.rewind(keep)
        expected = expected[:keep]
        assert computed.keys == expected
        assert computed.cache.keys[1, 0, 0, :keep, 0].tolist() == [token + 1 for token in expected]
        assert computed.cache.values[0, 0, 0, :keep, 3].tolist() == [-token for token in expected]


def test_memory_follows_need_in_steps_up_to_the_context() -> None:
    computed, capacities = new(), []
    assert computed.cache.capacity == 0
    for token in range(CONFIG.max_positions):
        put(computed, [token])
        capacities.append(computed.cache.capacity)
    assert sorted(set(capacities)) == [STEP, 2 * STEP, 3 * STEP, CONFIG.max_positions]


def test_a_step_broken_off_leaves_no_trace() -> None:
    computed = new()
    put(computed, [4, 5])
    computed.expect([6, 7])  # the model never gets to count them
    assert computed.keys == [4, 5]
    put(computed, [8])
    assert computed.keys == [4, 5, 8]


@given(st.lists(st.integers(1, 120), min_size=1, max_size=6), st.integers(0, 2**32))
@settings(max_examples=20)
def test_computing_piece_by_piece_equals_computing_at_once(sizes: list[int], seed: int) -> None:
    torch.manual_seed(0)
    model = LanguageModel(CONFIG).requires_grad_(False)
    embeds = torch.randn(1, sum(sizes), CONFIG.hidden_size, generator=torch.Generator().manual_seed(seed))
    positions = torch.arange(sum(sizes))[None]
    computed, pieces = new(), []
    for piece, where in zip(embeds.split(sizes, dim=1), positions.split(sizes, dim=1), strict=True):
        computed.expect([0] * piece.shape[1])
        pieces.append(model(piece, where, computed.cache))
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(embeds, positions), atol=1e-5, rtol=0)
