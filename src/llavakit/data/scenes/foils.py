"""Foils: captions in the same words as the true one, of which one detail is false."""

import random
from collections.abc import Callable
from dataclasses import replace

from .captions import Description, Group
from .relations import OPPOSITE
from .split import held_out_shape, held_out_word
from .things import SETTINGS, THINGS, also
from .vocabulary import COLORS, INKS, PLACES, SHAPES, SIZES

_ALL_PLACES = tuple(place for row in PLACES for place in row)


def foils(
    description: Description, caption: Callable[[Description], str], number: int, rng: random.Random
) -> list[str]:
    """`number` false captions; `caption` is the wording of the true one."""
    true = caption(description)
    found: list[str] = []
    for _ in range(60):
        changed = rng.choice((_change_group, _change_group, _change_group, _swap_colors, _turn_relation))(
            description, rng
        )
        text = caption(changed) if changed else true
        if text != true and text not in found:
            found.append(text)
        if len(found) == number:
            break
    return found


def _change_group(description: Description, rng: random.Random) -> Description | None:
    k = rng.randrange(len(description.groups))
    group = description.groups[k]
    changed = rng.choice((_color, _name, _name, _number, _place, _size))(group, rng)
    if (
        changed is None
        or _held_out(changed)
        or any((changed.name, changed.color) == (g.name, g.color) for g in description.groups if g is not group)
    ):
        return None
    return replace(description, groups=(*description.groups[:k], changed, *description.groups[k + 1 :]))


def _held_out(group: Group) -> bool:
    """What training never shows it does not call false either."""
    return held_out_shape(group.color, group.name) or (group.kind in ("word", "number") and held_out_word(group.name))


def _color(group: Group, rng: random.Random) -> Group | None:
    if group.kind == "thing":
        return None
    palette = COLORS if group.kind == "shape" else INKS
    return replace(group, color=rng.choice([c for c in palette if c != group.color]))


def _name(group: Group, rng: random.Random) -> Group:
    if group.kind == "shape":
        return replace(group, name=rng.choice([s for s in SHAPES if s != group.name]))
    if group.kind == "thing":
        near = [n for setting in SETTINGS if group.name in setting for n in setting]
        names = near if near and rng.random() < 0.6 else list(THINGS)
        return replace(
            group, name=rng.choice([n for n in names if n != group.name and not also(group.name, n)]), color=None
        )
    return replace(group, name=misspelled(group.name, rng))


def misspelled(letters: str, rng: random.Random) -> str:
    """The same letters or digits but for one of them, or two of them in the other order."""
    changed, k = list(letters), rng.randrange(len(letters))
    if k and rng.random() < 0.25 and changed[k - 1] != changed[k]:
        changed[k - 1], changed[k] = changed[k], changed[k - 1]
    else:
        alphabet = "123456789" if letters.isdigit() else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        changed[k] = rng.choice([other for other in alphabet if other != letters[k]])
    return "".join(changed)


def _number(group: Group, rng: random.Random) -> Group | None:
    if group.kind not in ("shape", "thing"):
        return None
    number = group.number + rng.choice((-1, 1))
    return None if number < 1 else replace(group, number=number, place=None)


def _place(group: Group, rng: random.Random) -> Group | None:
    return replace(group, place=rng.choice([p for p in _ALL_PLACES if p != group.place])) if group.place else None


def _size(group: Group, rng: random.Random) -> Group | None:
    return replace(group, size=rng.choice([s for s in SIZES if s != group.size])) if group.size else None


def _swap_colors(description: Description, rng: random.Random) -> Description | None:
    """The right colours on the wrong things."""
    groups = list(description.groups)
    shapes = [k for k, group in enumerate(groups) if group.kind == "shape"]
    if len(shapes) < 2:
        return None
    a, b = rng.sample(shapes, 2)
    groups[a], groups[b] = replace(groups[a], color=groups[b].color), replace(groups[b], color=groups[a].color)
    if _held_out(groups[a]) or _held_out(groups[b]):
        return None
    if {(g.name, g.color) for g in groups} == {(g.name, g.color) for g in description.groups}:
        return None
    return replace(description, groups=tuple(groups))


def _turn_relation(description: Description, rng: random.Random) -> Description | None:
    if description.relation is None:
        return None
    a, words, b = description.relation
    return replace(description, relation=(a, OPPOSITE[words], b))
