"""Fewer features for a view than it has patches, chosen before the language model reads them.

Which patches matter is told by the tower's own attention, as in VisionZip (Yang et al. 2024). Taking the patches with
most attention takes a large thing several times over; here the kept ones have to stand for all others, each of these
counted by the attention it received. What is not kept is dropped, but each kept one counts in the language model's
attention for as many patches as it stands for (ToMe's proportional attention, Bolya et al. 2022).
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Fewer = tuple[Float[Tensor, "views count width"], Int[Tensor, "views count"]]
"""Features in reading order, and the patch that each stands at: its place in the picture as the model learned it."""
SHARPNESS = 1.5  # power of the attention; found on pictures of another seed than those of docs/visual-tokens.md


def prune(
    features: Float[Tensor, "views patches width"], attention: Float[Tensor, "views patches"], count: int
) -> tuple[Float[Tensor, "views count width"], Int[Tensor, "views count"], Int[Tensor, "views count"]]:
    """The `count` patches of each view that are kept, in reading order, as in `Fewer`, and how many each stands for.

    `attention` is how much each patch is looked at. Every patch is stood for by the likest kept one, a kept one by
    itself, so that the last numbers sum up to all patches.
    """
    places = torch.stack([choose(*view, count) for view in zip(features, attention, strict=True)])
    masses = torch.stack([_masses(*view) for view in zip(features, places, strict=True)])
    return features.gather(1, places[..., None].expand(-1, -1, features.shape[-1])), places, masses


def choose(
    features: Float[Tensor, "patches width"], attention: Float[Tensor, " patches"], count: int
) -> Int[Tensor, " count"]:
    """The patches that stand best for a view, in reading order.

    One after the other the patch is taken that adds most to the sum, over all patches, of sharpened attention
    received times cosine likeness to the likest taken: facility location, for which this greedy choice is at least
    63% of the best (Nemhauser et al. 1978). Of equals the first is taken.
    """
    likeness = _likeness(features)
    weight = attention**SHARPNESS
    covered = torch.full_like(weight, -1.0)
    taken: list[int] = []
    for _ in range(count):
        gain = weight @ (likeness - covered[:, None]).clamp(min=0)
        gain[taken] = -1.0
        taken.append(int(gain.argmax()))
        covered = torch.maximum(covered, likeness[:, taken[-1]])
    return torch.tensor(sorted(taken), device=features.device)


def _masses(features: Float[Tensor, "patches width"], places: Int[Tensor, " count"]) -> Int[Tensor, " count"]:
    stands_for = _likeness(features)[:, places].argmax(1)
    stands_for[places] = torch.arange(len(places), device=places.device)  # others may be its equal
    return stands_for.bincount(minlength=len(places))


def _likeness(features: Float[Tensor, "patches width"]) -> Float[Tensor, "patches patches"]:
    """Cosines, in float32."""
    unit = F.normalize(features.float(), dim=-1)
    return unit @ unit.T


def pool(features: Float[Tensor, "views patches width"], count: int) -> Fewer:
    """The mean of each square of patches, row by row, standing at its middle; `count` squares fill the grid."""
    views, patches, _ = features.shape
    side = round(patches**0.5)
    square = side // round(count**0.5)
    grid = rearrange(features, "views (rows columns) width -> views width rows columns", rows=side)
    means = rearrange(F.avg_pool2d(grid, square), "views width rows columns -> views (rows columns) width")
    middles = torch.arange(0, side, square, device=features.device) + (square - 1) / 2
    places = (middles[:, None] * side + middles).floor().long().flatten()
    return means, places.expand(views, -1)
