"""From (seed, index) to a scene: what is in it, how each thing looks, and where it all goes."""

import random
from dataclasses import replace
from itertools import count

from .backgrounds import sample_background
from .fonts import HELD_OUT_FONT, LETTER_WIDTHS, TRAIN_FONTS
from .layout import arrange
from .plan import Wish, sample_wishes
from .scene import Background, Item, Scene
from .shapes import outline, turn
from .split import Split, held_out_reasons
from .things import DARK, PALE, THINGS
from .vocabulary import INKS, RGB, SIZES, distance, lightness, shade, typical

_CONTRAST = (26.0, 44.0)  # the least distance, in Lab, of a thing from a light or a dark background


def sample_scene(seed: int, index: int, split: Split = "train") -> Scene:
    """The scene of this number, the same for ever."""
    for attempt in count():
        rng = random.Random(f"scene/{split}/{seed}/{index}/{attempt}")
        scene = _compose(sample_wishes(rng, split), rng, split)
        if scene is not None and bool(held_out_reasons(scene)) == (split == "heldout"):
            return scene
    raise AssertionError("unreachable")


def _compose(wishes: list[Wish], rng: random.Random, split: Split) -> Scene | None:
    """Find a canvas, a background and a place for everything wished for; None where it cannot be had."""
    for attempt in range(24):
        if attempt == 12:
            wishes = [replace(wish, size="small" if wish.size else None) for wish in wishes]
        width, height = _canvas(rng)
        background = sample_background(rng)
        items = [_appear(wish, width, height, background, rng, split) for wish in wishes]
        if any(item is None for item in items):
            continue
        placed = arrange([item for item in items if item], width, height, rng)
        if placed is not None:
            png = rng.random() < 0.12
            return Scene(width, height, background, tuple(placed), smooth=rng.random() < 0.8,
                         file_format="png" if png else "jpg", quality=rng.randint(86, 95))  # fmt: skip
    return None


def _canvas(rng: random.Random) -> tuple[int, int]:
    long = rng.randint(112, 288)
    ratio = rng.choices((1.0, 4 / 3, 3 / 2, rng.uniform(1, 1.5), rng.uniform(1.5, 2)), (22, 18, 12, 38, 10))[0]
    short = round(long / ratio)
    return (long, short) if rng.random() < 0.6 else (short, long)


def _appear(
    wish: Wish, width: int, height: int, background: Background, rng: random.Random, split: Split
) -> Item | None:
    """Give a wish its look and its extent (a box at the origin); None where it would not be seen."""
    long = max(width, height)
    if wish.kind == "shape":
        return _shape(wish, long, background, rng)
    if wish.kind == "thing":
        return _thing(wish, long, background, rng)
    return _written(wish, width, height, background, rng, split)


def _shape(wish: Wish, long: int, background: Background, rng: random.Random) -> Item | None:
    rgb = shade(wish.color or "", rng)
    if not _visible(rgb, background):
        return None
    style = wish.style
    edge = (0, 0, 0) if rng.random() < 0.4 else tuple(int(c * 0.5) for c in rgb)
    angle, grain = turn(wish.name, rng), rng.getrandbits(24)
    wobble = rng.uniform(0.02, 0.05) if wish.by_hand else 0.0
    length = rng.uniform(*SIZES[wish.size or "small"]) * long
    w, h = (float(v) for v in outline(wish.name, angle, grain, wobble).max(0) * 2 * length)
    if min(w, h) < 0.085 * long:
        return None
    stroke = rng.uniform(0.06, 0.13) if style == "hollow" else rng.uniform(0.035, 0.07)
    return Item("shape", wish.name, wish.color, wish.size, (0, 0, w, h), rgb, style, edge,
                max(stroke, 0.022 * long / length), angle, wobble=wobble, grain=grain)  # fmt: skip


def _thing(wish: Wish, long: int, background: Background, rng: random.Random) -> Item | None:
    glyph, color = rng.choice([g for g in THINGS[wish.name].glyphs if wish.glyph in ("", g[0])])
    light = [sum(c) / 3 for c in background.colors]
    if (wish.name in PALE and max(light) > 225) or (wish.name in DARK and min(light) < 75):
        return None
    if color and not _visible(typical(color), background):
        return None
    length = rng.uniform(*SIZES[wish.size or "small"]) * long
    return Item("thing", wish.name, color, wish.size, (0, 0, length, length), glyph=glyph, flip=rng.random() < 0.5,
                angle=rng.choice((0.0, rng.uniform(-14, 14))), light=rng.uniform(0.85, 1.12))  # fmt: skip


def _written(
    wish: Wish, width: int, height: int, background: Background, rng: random.Random, split: Split
) -> Item | None:
    long = max(width, height)
    name = rng.choice(TRAIN_FONTS) if split == "train" else HELD_OUT_FONT
    ink = rng.choice(INKS)
    rgb, board = shade(ink, rng), None
    if wish.style == "sign":
        other = rng.choice([c for c in INKS if c != ink])
        board = shade(other, rng)
        if not _visible(board, background, ease=10):
            return None
    if not _legible(rgb, (board,) if board else background.colors):
        return None
    room = 1.35 if board else 1.1
    across = len(wish.name) * LETTER_WIDTHS[name] * 1.04 + room - 1
    most = min(0.24, 0.92 * width / long / across)
    if most < 0.092:
        return None
    tall = min(max(rng.uniform(0.092, most), rng.uniform(0.092, most)), 0.5 * height / long) * long
    style = "sign" if board else "plain"
    box = (0, 0, across * tall, room * tall)
    angle = rng.choice((0.0, 0.0, 0.0, rng.uniform(-7, 7)))
    return Item(wish.kind, wish.name, ink, None, box, rgb, style, board or (0, 0, 0), angle=angle, font=name)


def _visible(rgb: RGB, background: Background, ease: float = 0.0) -> bool:
    return all(distance(rgb, behind) >= _CONTRAST[sum(behind) < 330] - ease for behind in background.colors)


def _legible(ink: RGB, behind: tuple[RGB, ...]) -> bool:
    """Letters need a difference in lightness, not only in colour."""
    return all(distance(ink, other) >= 40 and abs(lightness(ink) - lightness(other)) >= 26 for other in behind)
