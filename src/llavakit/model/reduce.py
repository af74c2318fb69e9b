"""Fewer vectors for a view than it has patches, chosen before the language model reads them.

Which patches matter is told by the tower's own attention, as in VisionZip (Yang et al. 2024). Taking the patches with
most attention takes a large thing several times over; here the kept ones have to stand for all others, each of these
counted by the attention it received. What is not kept is averaged into what stands for it (PruMerge, Shang et al.
2024), and that counts in the language model's attention for as many patches as it stands for (ToMe, Bolya et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

SHARPNESS = 1.5  # power of the attention; found on pictures of another seed than those of docs/visual-tokens.md


@dataclass(frozen=True)
class Fewer:
    """What stands for the patches of each view, in reading order.

    Each vector is made of `parts` of the patches' embeddings, which sum up to 1, and stands at a patch: its place in
    the picture as the model learned it. `masses` are how many patches it counts for: in sum all. None: nothing changes.
    """

    parts: Float[Tensor, "views count patches"]
    places: Int[Tensor, "views count"]
    masses: Float[Tensor, "views count"] | None = None

    def of(self, embeds: Float[Tensor, "views patches dim"]) -> Float[Tensor, "views count dim"]:
        """The vectors themselves."""
        return self.parts.to(embeds.dtype) @ embeds

    @property
    def bias(self) -> Float[Tensor, "views count"] | None:
        """What is added to the attention to each, so that one counts as that many equal ones."""
        return None if self.masses is None else self.masses.log()


def condense(
    features: Float[Tensor, "views patches width"], attention: Float[Tensor, "views patches"], count: int
) -> Fewer:
    """By the `count` patches of each view that are chosen; `attention` is how much each patch is looked at.

    Every patch belongs to the likest chosen one, a chosen one to itself. What belongs together is averaged, weighted by
    its attention.
    """
    parts, places, masses = zip(*(_one(*view, count) for view in zip(features, attention, strict=True)), strict=True)
    return Fewer(torch.stack(parts), torch.stack(places), torch.stack(masses))


def _one(
    features: Float[Tensor, "patches width"], attention: Float[Tensor, " patches"], count: int
) -> tuple[Float[Tensor, "count patches"], Int[Tensor, " count"], Float[Tensor, " count"]]:
    likeness = _likeness(features)
    places = choose(likeness, attention, count)
    owner = likeness[:, places].argmax(1)
    owner[places] = torch.arange(count, device=places.device)  # others may be its equal
    belongs = F.one_hot(owner, count).T.float()
    weighted = belongs * attention.clamp(min=torch.finfo(torch.float32).tiny)
    return weighted / weighted.sum(1, keepdim=True), places, belongs.sum(1)


def choose(
    likeness: Float[Tensor, "patches patches"], attention: Float[Tensor, " patches"], count: int
) -> Int[Tensor, " count"]:
    """The patches that stand best for a view, in reading order.

    One after the other the patch is taken that adds most to the sum, over all patches, of sharpened attention
    received times likeness to the likest taken: facility location, for which this greedy choice is at least 63% of the
    best (Nemhauser et al. 1978). Of equals the first is taken.
    """
    weight = attention**SHARPNESS
    covered = torch.full_like(weight, -1.0)
    taken: list[int] = []
    for _ in range(count):
        gain = weight @ (likeness - covered[:, None]).clamp(min=0)
        gain[taken] = -1.0
        taken.append(int(gain.argmax()))
        covered = torch.maximum(covered, likeness[:, taken[-1]])
    return torch.tensor(sorted(taken), device=likeness.device)


def _likeness(features: Float[Tensor, "patches width"]) -> Float[Tensor, "patches patches"]:
    """Cosines, in float32."""
    unit = F.normalize(features.float(), dim=-1)
    return unit @ unit.T


def pool(features: Float[Tensor, "views patches width"], count: int) -> Fewer:
    """By the mean of each square of patches, row by row, standing at its middle; `count` squares fill the grid."""
    views, patches, _ = features.shape
    side, squares = round(patches**0.5), round(count**0.5)
    square = side // squares
    line = torch.arange(side, device=features.device) // square
    owner = (line[:, None] * squares + line).flatten()
    parts = F.one_hot(owner, count).T.float() / square**2
    middles = torch.arange(0, side, square, device=features.device) + (square - 1) / 2
    places = (middles[:, None] * side + middles).floor().long().flatten()
    return Fewer(parts.expand(views, -1, -1), places.expand(views, -1))
