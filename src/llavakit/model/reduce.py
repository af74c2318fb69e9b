"""Fewer features for a view than it has patches, chosen before the language model reads them.

Which patches matter is told by the tower's own attention, as in VisionZip (Yang et al. 2024). Taking the patches with
most attention takes a large thing several times over; here the kept ones have to stand for all others, each other
counted by the attention it received, and then every patch is merged into the kept one most like it.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def reduce_features(
    features: Float[Tensor, "views patches width"], attention: Float[Tensor, "views patches"], count: int
) -> Float[Tensor, "views count width"]:
    """`count` features for each view, in reading order of the patches they stand at; all of them are left as they are.

    `attention` is how much each patch is looked at.
    """
    if count == features.shape[1]:
        return features
    views = zip(features, attention, strict=True)
    return torch.stack([_merge(view, choose(view, looked_at, count)) for view, looked_at in views])


def choose(
    features: Float[Tensor, "patches width"], attention: Float[Tensor, " patches"], count: int
) -> Int[Tensor, " count"]:
    """The patches that stand best for the view, in reading order.

    One after the other the patch is taken that adds most to the sum, over all patches, of attention received times
    cosine likeness to the likest taken (facility location, for which this greedy choice is at least 63% of the best:
    Nemhauser et al. 1978). Of equals the first is taken.
    """
    likeness = _likeness(features)
    covered = torch.full_like(attention, -1.0)
    taken: list[int] = []
    for _ in range(count):
        gain = attention @ (likeness - covered[:, None]).clamp(min=0)
        gain[taken] = -1.0
        taken.append(int(gain.argmax()))
        covered = torch.maximum(covered, likeness[:, taken[-1]])
    return torch.tensor(sorted(taken), device=features.device)


def _merge(features: Float[Tensor, "patches width"], kept: Int[Tensor, " count"]) -> Float[Tensor, "count width"]:
    """The mean of each kept feature and those that are more like it than like any other kept one."""
    nearest = _likeness(features)[:, kept].argmax(1)
    nearest[kept] = torch.arange(len(kept), device=kept.device)  # also where two are equal
    members = F.one_hot(nearest, len(kept)).to(features.dtype)
    return members.T @ features / members.sum(0)[:, None]


def _likeness(features: Float[Tensor, "patches width"]) -> Float[Tensor, "patches patches"]:
    """Cosines, in float32."""
    unit = F.normalize(features.float(), dim=-1)
    return unit @ unit.T


def pool_patches(features: Float[Tensor, "views patches width"], count: int) -> Float[Tensor, "views count width"]:
    """The mean of each square of patches, row by row; `count` squares fill the grid."""
    if count == features.shape[1]:
        return features
    side = round(features.shape[1] ** 0.5)
    square = side // round(count**0.5)
    grid = rearrange(features, "views (rows columns) width -> views width rows columns", rows=side)
    return rearrange(F.avg_pool2d(grid, square), "views width rows columns -> views (rows columns) width")
