"""A picture before it is drawn: what stands where, in which colour and style. Everything later is read from here."""

from dataclasses import dataclass
from typing import Literal

from .vocabulary import LANDSCAPES, PLACES, RGB

Kind = Literal["shape", "thing", "word", "number"]
CLEAR = 0.03  # a centre this close to the line between two places (of the side) is in neither


@dataclass(frozen=True)
class Background:
    """What lies behind: plain, graded, noise, stripes, dots, paper or a landscape."""

    kind: str
    name: str
    colors: tuple[RGB, ...]
    angle: float = 0.0

    @property
    def phrase(self) -> str:
        """The background as a noun phrase."""
        if self.kind == "landscape":
            return LANDSCAPES[self.name][2]
        texture = {"stripes": "striped ", "dots": "dotted "}.get(self.kind, "")
        return f"{'an' if (texture or self.name)[0] in 'aeiou' else 'a'} {texture}{self.name} background"

    @property
    def where(self) -> str:
        """The background as the place in which everything is."""
        return f"{LANDSCAPES[self.name][1] if self.kind == 'landscape' else 'on'} {self.phrase}"

    @property
    def sentence(self) -> str:
        """The background as a sentence of its own."""
        return f"The {'place is' if self.kind == 'landscape' else 'picture has'} {self.phrase}."


@dataclass(frozen=True)
class Item:
    """One thing in a picture. `box` is left, top, right, bottom in pixels."""

    kind: Kind
    name: str  # the shape, the thing, or the letters themselves
    color: str | None  # None where nobody could name one colour
    size: str | None  # None for words and numbers
    box: tuple[float, float, float, float]
    rgb: RGB = (0, 0, 0)
    style: str = "filled"  # filled, outlined, hollow; for words: plain, sign
    edge: RGB = (0, 0, 0)  # the outline of an outlined shape, the board of a sign
    stroke: float = 0.1  # width of the outline, of the longer side
    angle: float = 0.0
    flip: bool = False
    wobble: float = 0.0  # how unsteady the hand was
    light: float = 1.0
    glyph: str = ""
    font: str = ""
    grain: int = 0  # chooses among the variants of a form

    @property
    def is_written(self) -> bool:
        return self.kind in ("word", "number")

    @property
    def center(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def length(self) -> float:
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


@dataclass(frozen=True)
class Scene:
    """A whole picture."""

    width: int
    height: int
    background: Background
    items: tuple[Item, ...]
    smooth: bool  # antialiased or not
    file_format: Literal["jpg", "png"]
    quality: int

    @property
    def long_side(self) -> int:
        return max(self.width, self.height)


def place(scene: Scene, item: Item) -> str | None:
    """Where an item is, one of nine places, or None where one could argue."""
    x, y = item.center
    column, row = _third(x / scene.width), _third(y / scene.height)
    return None if column is None or row is None else PLACES[row][column]


def _third(fraction: float) -> int | None:
    if min(abs(fraction - 1 / 3), abs(fraction - 2 / 3)) < CLEAR:
        return None
    return int(fraction * 3)
