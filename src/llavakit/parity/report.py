"""Two models' walks laid side by side, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llavakit.parity.compare import Difference, numbers, sequences
from llavakit.parity.walk import Walk

# What float32 leaves between two ways of computing the same; words and ids have to be equal.
TOLERANCES: Mapping[str, float] = {"pixels": 1e-6, "features": 2e-5, "projected": 2e-5, "logits": 1e-4}


@dataclass(frozen=True)
class Parting:
    """The first place where two models part: in which picture, and where in the stage's output."""

    picture: str
    index: tuple[int, ...]
    says: str


@dataclass(frozen=True)
class Stage:
    """One stage over all pictures. `tolerance` is None where equality is asked for.

    `largest` is None where there are no numbers, or where those of some picture cannot be laid over one another.
    """

    name: str
    tolerance: float | None
    largest: float | None
    parting: Parting | None

    @property
    def agrees(self) -> bool:
        return self.parting is None


@dataclass(frozen=True)
class Report:
    """All stages, in the order in which a picture passes them."""

    stages: tuple[Stage, ...]
    pictures: tuple[str, ...]

    @property
    def first_to_part(self) -> Stage | None:
        """The stage where it began; those behind it only pass on what they got."""
        return next((stage for stage in self.stages if not stage.agrees), None)


def report(one: Mapping[str, Walk], other: Mapping[str, Walk], tolerances: Mapping[str, float] = TOLERANCES) -> Report:
    """Of walks by the name of their picture, the same pictures in both."""
    stages = tuple(
        _stage(name, tolerances.get(name), [(picture, compare(one[picture], other[picture])) for picture in one])
        for name, compare in _comparisons(tolerances).items()
    )
    return Report(stages, tuple(one))


def _comparisons(tolerances: Mapping[str, float]) -> dict[str, Callable[[Walk, Walk], Difference]]:
    return {
        "pixels": lambda a, b: numbers(a.pixels, b.pixels, tolerances["pixels"]),
        "features": lambda a, b: numbers(a.features, b.features, tolerances["features"]),
        "projected": lambda a, b: numbers(a.projected, b.projected, tolerances["projected"]),
        "prompt": lambda a, b: sequences(a.prompt, b.prompt),
        "logits": lambda a, b: _logits(a, b, tolerances["logits"]),
        "text": lambda a, b: sequences(a.text, b.text),
    }


def _logits(one: Walk, other: Walk, tolerance: float) -> Difference:
    """Over the ids that both can spell: formats pad the vocabulary differently. The index begins with the token."""
    spelt = min(one.logits.shape[1], other.logits.shape[1])
    found = numbers(one.logits[:, :spelt], other.logits[:, :spelt], tolerance)
    return Difference(found.largest, (one.words[found.index[0]], found.index[1]), found.says) if found.index else found


def _stage(name: str, tolerance: float | None, found: Sequence[tuple[str, Difference]]) -> Stage:
    measured = [difference.largest for _, difference in found]
    parted = next(((picture, difference) for picture, difference in found if not difference.agrees), None)
    return Stage(
        name=name,
        tolerance=tolerance,
        largest=None if None in measured else max(measured),
        parting=Parting(parted[0], parted[1].index, parted[1].says) if parted else None,
    )
