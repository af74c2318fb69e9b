"""What a picture shall hold, before anyone knows how it looks: a list of wishes."""

import random
from dataclasses import dataclass, replace

from .scene import Kind
from .split import HELD_OUT_PAIRS, Split, held_out_together, held_out_word
from .things import SETTINGS, THINGS
from .vocabulary import COLORS, SHAPES
from .words import COMMON, NAMES

_SIZES = ("small", "medium", "large")
_SIZE_WEIGHTS = {1: (25, 40, 35), 2: (30, 45, 25), 3: (40, 48, 12), 4: (62, 35, 3), 5: (88, 12, 0), 6: (100, 0, 0)}
_NAMES = tuple(THINGS)
_BY_LENGTH = {length: [word for word in COMMON if len(word) == length] for length in range(2, 8)}


@dataclass(frozen=True)
class Wish:
    """One thing a picture shall hold."""

    kind: Kind
    name: str
    color: str | None = None
    size: str | None = None
    style: str = "filled"
    by_hand: bool = False
    glyph: str = ""


def sample_wishes(rng: random.Random, split: Split) -> list[Wish]:
    """One to six wishes of one of the plans below; for the held-out split one of them is held out."""
    plan = rng.choices((_alone, _counted, _lettered, _mixed, _alike), (12, 21, 26, 30, 11))[0]
    wishes = plan(rng)
    if split == "heldout":
        wishes = _hold_out(wishes, rng)
    wishes = wishes[:6]
    weights = _SIZE_WEIGHTS[len(wishes)]
    sizes = {(w.name, w.color): rng.choices(_SIZES, weights)[0] for w in wishes}
    return [w if w.kind in ("word", "number") else replace(w, size=sizes[w.name, w.color]) for w in wishes]


def _alone(rng: random.Random) -> list[Wish]:
    return [rng.choices((_shape, _thing, _word), (42, 40, 18))[0](rng)]


def _counted(rng: random.Random) -> list[Wish]:
    """Several of one kind, and perhaps a few others that could be confused with them."""
    one = rng.choice((_shape, _thing))(rng)
    number = rng.choices((2, 3, 4, 5, 6), (20, 22, 26, 27, 5))[0]
    others = [_near(one, rng) for _ in range(min(rng.choice((0, 0, 1, 1, 2, 3)), 6 - number))]
    return [one] * number + [o for o in others if o.name != one.name or o.kind == "shape"]


def _lettered(rng: random.Random) -> list[Wish]:
    words = [_word(rng) for _ in range(rng.choices((1, 2), (75, 25))[0])]
    return words + [rng.choice((_shape, _thing))(rng) for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))]


def _mixed(rng: random.Random) -> list[Wish]:
    """Two to five different ones; half of the time the things belong together."""
    number = rng.choices((2, 3, 4, 5), (30, 32, 24, 14))[0]
    names = rng.choice(SETTINGS) if rng.random() < 0.5 else _NAMES
    names = rng.sample(names, number)
    parts = rng.choice(((50, 50, 0), (50, 42, 8), (0, 1, 0), (1, 0, 0)))
    return [
        _thing(rng, names[k]) if kind == "thing" else _word(rng) if kind == "word" else _shape(rng)
        for k, kind in enumerate(rng.choices(("shape", "thing", "word"), parts, k=number))
    ]


def _alike(rng: random.Random) -> list[Wish]:
    """Shapes that share a colour or a form, so that each must be looked at as a whole."""
    wishes = [_shape(rng)]
    for _ in range(rng.choice((1, 2, 2, 3, 4))):
        wishes.append(_near(rng.choice(wishes), rng))
    return wishes


def _near(one: Wish, rng: random.Random) -> Wish:
    if one.kind == "shape" and rng.random() < 0.8:
        changed = _shape(rng)
        return replace(changed, name=one.name) if rng.random() < 0.5 else replace(changed, color=one.color)
    if one.kind == "thing" and rng.random() < 0.5:
        setting = rng.choice([s for s in SETTINGS if one.name in s] or [_NAMES])
        return _thing(rng, rng.choice(setting))
    return rng.choice((_shape, _thing))(rng)


def _shape(rng: random.Random) -> Wish:
    style = rng.choices(("filled", "outlined", "hollow"), (55, 20, 25))[0]
    return Wish("shape", rng.choice(SHAPES), rng.choice(COLORS), style=style, by_hand=rng.random() < 0.2)


def _thing(rng: random.Random, name: str = "") -> Wish:
    name = name or rng.choice(_NAMES)
    return Wish("thing", name, glyph=rng.choice(THINGS[name].glyphs)[0])


def _word(rng: random.Random) -> Wish:
    style = "sign" if rng.random() < 0.2 else "plain"
    kind = rng.choices(("common", "letters", "name", "number"), (52, 22, 9, 17))[0]
    if kind == "number":
        digits = rng.choices((1, 2, 3, 4), (25, 35, 25, 15))[0]
        return Wish("number", str(rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)), style=style)
    if kind == "letters":
        length = rng.choices((2, 3, 4, 5, 6), (10, 32, 30, 22, 6))[0]
        return Wish("word", "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=length)), style=style)
    length = rng.choices((2, 3, 4, 5, 6, 7), (5, 28, 32, 25, 7, 3))[0]
    words = _BY_LENGTH[length] if kind == "common" else NAMES
    return Wish("word", rng.choice(words), style=style)


def _hold_out(wishes: list[Wish], rng: random.Random) -> list[Wish]:
    """Change a plan so that it holds something that training never shows."""
    written = [w for w in wishes if w.kind in ("word", "number")]
    if written:
        return [_unseen_word(rng) if w in written else w for w in wishes]
    wishes = wishes[:5]
    first = wishes[0]
    if first.kind == "shape":
        color, name = rng.choice(sorted(HELD_OUT_PAIRS))
        return [
            replace(w, color=color, name=name) if (w.name, w.color) == (first.name, first.color) else w for w in wishes
        ]
    partners = [n for n in _NAMES if held_out_together(n, first.name)]
    return [*wishes[:4], _thing(rng, rng.choice(partners))] if partners else wishes


def _unseen_word(rng: random.Random) -> Wish:
    while not held_out_word((wish := _word(rng)).name):
        pass
    return wish
