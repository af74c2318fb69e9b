"""The schemes there are: what kind of number each part of a model is written in, and how many share a scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llavakit.config import nearest
from llavakit.kernels.packed import Kind, record_bytes


@dataclass(frozen=True)
class Grid:
    """Numbers of one kind, `group` of them in a row sharing a scale."""

    kind: Kind
    group: int

    @property
    def bits(self) -> float:
        """For each number, with its part of the scale."""
        return record_bytes(self.kind, self.group) * 8 / (2 * self.group * 16)

    @property
    def is_exact(self) -> bool:
        """Whether rounding is so fine that nothing has to be known of what the numbers are multiplied with."""
        return self.bits >= 8


@dataclass(frozen=True)
class Scheme:
    """`language`: the matrices of the decoder's layers; `head`: output matrix and embeddings; `tower`: tower and
    projector. Norms, biases, positions and what cuts a picture into patches stay as they are.
    """

    language: Grid
    head: Grid
    tower: Grid

    @property
    def is_exact(self) -> bool:
        """As of a grid: for all parts."""
        return self.language.is_exact and self.head.is_exact and self.tower.is_exact

    def grid(self, name: str) -> Grid:
        """What the matrix of this name in a `Llava` becomes."""
        if name in ("language.embed_tokens", "language.lm_head"):
            return self.head
        return self.language if name.startswith("language.") else self.tower


_INT8 = Grid("int8", 128)  # finer groups gain next to nothing and take a quarter longer

SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        "int8": Scheme(language=_INT8, head=_INT8, tower=_INT8),
        "int4-g32": Scheme(language=Grid("int4", 32), head=_INT8, tower=_INT8),
        "int4-g128": Scheme(language=Grid("int4", 128), head=_INT8, tower=_INT8),
        "nf4": Scheme(language=Grid("nf4", 32), head=_INT8, tower=_INT8),
    }
)


def describe(scheme: Scheme) -> str:
    """In words, for somebody who reads what a model is."""
    parts = (("language model", scheme.language), ("head and embeddings", scheme.head), ("tower", scheme.tower))
    return "; ".join(f"{part} {grid.kind} in groups of {grid.group}, {grid.bits:g} bits" for part, grid in parts)


def find_scheme(name: str) -> Scheme:
    """Raises ValueError that names the nearest scheme."""
    if name not in SCHEMES:
        raise ValueError(f"there is no scheme {name!r}; {nearest(name, [*SCHEMES])}")
    return SCHEMES[name]
