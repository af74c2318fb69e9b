"""What is made small: the surprise at the next token, and mismatched pictures and captions."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from llavakit.data.collate import IGNORE

CHUNK = 4096  # positions whose logits exist at one time


def cross_entropy(
    hidden: Float[Tensor, "batch seq dim"],
    labels: Int[Tensor, "batch seq"],
    output_weight: Float[Tensor, "vocab dim"],
    *,
    chunk: int = CHUNK,
) -> Float[Tensor, ""]:
    """The summed cross-entropy of the labelled positions, straight from hidden states.

    Only labelled positions get logits, a chunk at a time, and these are made again in the backward pass: the memory
    is one chunk's, not the batch's. A sum, so that the caller can divide by the targets of a whole batch however
    many pieces it is computed in.
    """
    kept = labels != IGNORE
    hidden, labels = hidden[kept], labels[kept]
    pieces = zip(hidden.split(chunk), labels.split(chunk), strict=True)
    losses = [checkpoint(_piece, part, wanted, output_weight, use_reentrant=False) for part, wanted in pieces]
    return torch.stack(losses).sum() if losses else hidden.sum() * 0.0


def _piece(hidden: Tensor, labels: Tensor, output_weight: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, output_weight).float(), labels, reduction="sum")


def contrastive(
    pictures: Float[Tensor, "batch embed"],
    texts: Float[Tensor, "texts embed"],
    scale: Float[Tensor, ""],
    same: Bool[Tensor, "batch texts"],
) -> Float[Tensor, ""]:
    """CLIP's symmetric loss: each picture finds its caption among all texts, each caption its picture.

    The first `batch` texts are the captions in order; any further ones are foils. `same` marks texts equal to the
    picture's caption: these are no mistake, and do not count against it.
    """
    batch = len(pictures)
    logits = (scale * pictures @ texts.T).masked_fill(elsewhere(same), float("-inf"))
    own = torch.arange(batch, device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, :batch].T, own)) / 2


def elsewhere(same: Bool[Tensor, "batch texts"]) -> Bool[Tensor, "batch texts"]:
    """Where a picture's caption stands a second time, beside its own place on the diagonal."""
    return same & ~torch.eye(*same.shape, dtype=torch.bool, device=same.device)


def match_patches(
    patches: Float[Tensor, "batch patches embed"],
    words: Float[Tensor, "words embed"],
    scale: Float[Tensor, ""],
    labels: Int[Tensor, "batch patches"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How badly patches find their own words among all `words`, and the share that finds them.

    Patches of one picture with the same words count as one together, however many they are: a small thing weighs as
    much as a wide background. IGNORE marks patches nobody has words for.
    """
    kept = labels != IGNORE
    picture, label = kept.nonzero()[:, 0], labels[kept]
    group = picture * len(words) + label
    sizes = torch.bincount(group, minlength=len(labels) * len(words))
    weights = 1 / sizes[group]
    logits = scale * patches[kept] @ words.T
    total = weights.sum()
    loss = (weights * F.cross_entropy(logits, label, reduction="none")).sum() / total
    return loss, (weights * (logits.argmax(-1) == label)).sum() / total
