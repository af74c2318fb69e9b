"""Fewer features, against the same said in plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from llavakit.config import VisionConfig
from llavakit.model import VisionTower
from llavakit.model.reduce import SHARPNESS, choose, condense, pool


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def naive_choice(features: list[list[float]], attention: list[float], count: int) -> list[int]:
    taken: list[int] = []

    def worth(chosen: list[int]) -> float:
        """Minus one is as unlike as can be: what no patch stands for yet."""
        total = 0.0
        for patch, looked_at in zip(features, attention, strict=True):
            likest = max([cosine(patch, features[other]) for other in chosen], default=-1.0)
            total += looked_at**SHARPNESS * likest
        return total

    for _ in range(count):
        left = [patch for patch in range(len(features)) if patch not in taken]
        taken.append(max(left, key=lambda patch: worth([*taken, patch])))
    return sorted(taken)


def cosines(features: torch.Tensor) -> torch.Tensor:
    rows = features.double().tolist()
    return torch.tensor([[cosine(one, other) for other in rows] for one in rows])


@pytest.mark.parametrize("count", [1, 3, 7, 16])
def test_the_choice_equals_plain_loops(count: int) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        features, attention = torch.randn(16, 6), torch.rand(16).softmax(0)
        expected = naive_choice(features.double().tolist(), attention.double().tolist(), count)
        assert choose(cosines(features), attention, count).tolist() == expected
        assert condense(features[None], attention[None], count).places[0].tolist() == expected


@pytest.mark.parametrize("count", [1, 3, 7, 16])
def test_every_patch_becomes_part_of_the_likest_chosen_one(count: int) -> None:
    torch.manual_seed(0)
    features, attention, embeds = torch.randn(2, 16, 6), torch.rand(2, 16) + 0.1, torch.randn(2, 16, 5)
    features[:, 8:] = features[:, :8] * 2  # each has an equal, which may be chosen too
    fewer = condense(features, attention, count)
    found = fewer.of(embeds)
    for view in range(2):
        rows, kept = features[view].double().tolist(), fewer.places[view].tolist()
        members: list[list[int]] = [[] for _ in kept]
        for patch in range(16):
            likest = max(range(count), key=lambda i: round(cosine(rows[patch], rows[kept[i]]), 6))
            members[kept.index(patch) if patch in kept else likest].append(patch)
        for i, some in enumerate(members):
            expected = sum(attention[view, at] * embeds[view, at] for at in some) / sum(attention[view, some])
            torch.testing.assert_close(found[view, i], expected)
        assert fewer.masses[view].tolist() == [len(some) for some in members]
    assert fewer.bias.exp().sum(1).tolist() == pytest.approx([16, 16])


def test_what_nobody_looks_at_is_averaged_too() -> None:
    fewer = condense(torch.ones(1, 4, 3), torch.tensor([[1.0, 0, 0, 0]]), 2)
    assert fewer.parts.isfinite().all() and fewer.parts.sum(2).tolist() == [[1, 1]]


def test_all_patches_are_all_patches() -> None:
    torch.manual_seed(0)
    features, attention, embeds = torch.randn(2, 16, 6), torch.rand(2, 16), torch.randn(2, 16, 5)
    condensed = condense(features, attention, 16)
    assert condensed.masses.tolist() == [[1] * 16] * 2
    for fewer in (condensed, pool(features, 16)):
        assert torch.equal(fewer.of(embeds), embeds)
        assert fewer.places.tolist() == [list(range(16))] * 2


def test_equal_patches_are_taken_once_before_others() -> None:
    torch.manual_seed(0)
    features = torch.eye(4).repeat_interleave(4, 0)
    assert (choose(features @ features.T, torch.rand(16) + 0.1, 4) // 4).tolist() == [0, 1, 2, 3]


def test_pooling_equals_plain_loops() -> None:
    features = torch.randn(2, 36, 5)
    fewer = pool(features, 4)  # squares of 3x3 patches
    pooled = fewer.of(features)
    assert fewer.bias is None
    for view in range(2):
        for square in range(4):
            top, left = square // 2 * 3, square % 2 * 3
            members = [(top + row) * 6 + left + column for row in range(3) for column in range(3)]
            expected = sum(features[view, member] for member in members) / 9
            assert torch.allclose(pooled[view, square], expected, atol=1e-6)
            assert fewer.places[view, square] == members[4]


@pytest.mark.parametrize("class_token", [True, False])
def test_how_much_a_patch_is_looked_at_equals_plain_loops(class_token: bool) -> None:
    """In shares of each computed layer by the class vector; where there is none, by every patch in the last."""
    torch.manual_seed(0)
    config = VisionConfig(
        image_size=28,
        patch_size=7,
        hidden_size=8,
        intermediate_size=8,
        num_layers=3,
        num_heads=2,
        class_token=class_token,
    )
    tower, pixels = VisionTower(config), torch.randn(2, 3, 28, 28)
    with torch.inference_mode():
        features, looked_at = tower.features_and_attention(pixels)
        assert torch.equal(features, tower(pixels))
        assert len(tower.layers) == 2  # feature layer -2: the second of three is the last computed
        expected = torch.zeros(2, 16)
        for layer, state in list(zip(tower.layers, tower.hidden_states(pixels)[:2], strict=True))[not class_token :]:
            entered = layer.layer_norm1(state)
            query, key = layer.self_attn.q_proj(entered), layer.self_attn.k_proj(entered)
            for view in range(2):
                expected[view] += shares(query[view], key[view], first=int(class_token))
    torch.testing.assert_close(looked_at, expected, atol=1e-5, rtol=0)


def shares(query: torch.Tensor, key: torch.Tensor, *, first: int) -> torch.Tensor:
    """Of the attention that one layer of two heads gives to patches, in loops; the class vector comes first or not."""
    total = torch.zeros(len(query))
    for head in (slice(0, 4), slice(4, 8)):
        for looking in range(1 if first else len(query)):
            scores = [math.exp(query[looking, head] @ key[at, head] / 2) for at in range(len(key))]
            total += torch.tensor(scores) / sum(scores)
    return total[first:] / total[first:].sum()
