"""The losses against their definitions, written the slow way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from llavakit.data.collate import IGNORE
from llavakit.train.loss import contrastive, cross_entropy, match_patches


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 10, 11, 4096])
def test_chunked_equals_torch(chunk: int) -> None:
    """Value and both gradients, whatever the size of the chunks: below, at, and above the ten labels."""
    hidden, weight, labels = some_positions(learned=10)
    ours = cross_entropy(hidden, labels, weight, chunk=chunk)
    theirs = F.cross_entropy((hidden @ weight.T).flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (hidden, weight)), torch.autograd.grad(theirs, (hidden, weight))
    )


def test_without_a_target_the_loss_is_zero_and_still_has_a_gradient() -> None:
    hidden, weight, labels = some_positions(learned=0)
    loss = cross_entropy(hidden, labels, weight)
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None and not hidden.grad.any()


def test_only_labelled_positions_reach_the_loss() -> None:
    hidden, weight, labels = some_positions(learned=4)
    cross_entropy(hidden, labels, weight).backward()
    assert torch.equal(hidden.grad.any(-1), labels != IGNORE)


@pytest.mark.parametrize("num_foils", [0, 1, 2])
def test_contrastive_equals_a_loop(num_foils: int) -> None:
    """With foils, with the caption of picture 0 again at picture 2, and once more among the foils."""
    pictures, texts = unit_rows(4, seed=0), unit_rows(4 * (1 + num_foils), seed=1)
    same = torch.eye(len(texts), dtype=torch.bool)[:4]
    same[0, 2] = same[2, 0] = True
    if num_foils:
        same[1, 5] = True
    pictures.requires_grad_()
    ours = contrastive(pictures, texts, torch.tensor(7.0), same)
    theirs = slow_contrastive(pictures, texts, 7.0, same)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, pictures), torch.autograd.grad(theirs, pictures))


def test_patches_equal_a_loop() -> None:
    """Two pictures of three patches, two of them with the same words, one with none."""
    patches, words = unit_rows(6, seed=0).view(2, 3, 6).requires_grad_(), unit_rows(4, seed=1)
    labels = torch.tensor([[2, 2, 1], [0, IGNORE, 2]])
    ours, named = match_patches(patches, words, torch.tensor(7.0), labels)
    surprise = {
        (i, j): -(7 * patches[i, j] @ words.T).log_softmax(-1)[labels[i, j]]
        for i, j in (labels != IGNORE).nonzero().tolist()
    }
    theirs = ((surprise[0, 0] + surprise[0, 1]) / 2 + surprise[0, 2] + surprise[1, 0] + surprise[1, 2]) / 4
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, patches), torch.autograd.grad(theirs, patches))
    right = [(patches[i, j] @ words.T).argmax() == labels[i, j] for i, j in surprise]
    assert named == (right[0] / 2 + right[1] / 2 + right[2] + right[3] + right[4]) / 4


def slow_contrastive(pictures: Tensor, texts: Tensor, scale: float, same: Tensor) -> Tensor:
    losses = []
    for i in range(len(pictures)):
        likeness = [scale * pictures[i] @ text for text in texts]
        rivals = [likeness[j] for j in range(len(texts)) if j == i or not same[i, j]]
        losses.append(torch.stack(rivals).logsumexp(0) - likeness[i])
    for j in range(len(pictures)):  # foils belong to no picture, and look for none
        likeness = [scale * picture @ texts[j] for picture in pictures]
        rivals = [likeness[i] for i in range(len(pictures)) if i == j or not same[i, j]]
        losses.append(torch.stack(rivals).logsumexp(0) - likeness[j])
    return torch.stack(losses).sum() / (2 * len(pictures))


def some_positions(*, learned: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(learned)
    hidden, weight = torch.randn(3, 6, 5, generator=generator), torch.randn(13, 5, generator=generator)
    labels = torch.full((18,), IGNORE)
    at = torch.randperm(18, generator=generator)[:learned]
    labels[at] = torch.randint(13, (learned,), generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), labels.view(3, 6)


def unit_rows(rows: int, *, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed)), dim=-1)
