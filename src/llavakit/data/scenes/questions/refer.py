"""How the things in a picture are spoken of, so that it is clear which one is meant; and what is surely not there."""

import random
from collections import Counter

from ..captions import plural, singular
from ..scene import Item, Scene
from ..split import held_out_shape, held_out_together
from ..things import SETTINGS, THINGS, also
from ..vocabulary import COLORS, COUNTS, SHAPES

_BODIES = {"animal", "toy", "body part", "clothing"}


def refer(scene: Scene, item: Item, rng: random.Random, by_color: bool = True) -> str | None:
    """`the cat`, `the red circle`, `the word`: words that fit this item and no other, or None."""
    if item.is_written:
        several = sum(other.kind == item.kind for other in scene.items) > 1
        if several:
            return None
        return f"the {item.kind}"
    twins = [other for other in scene.items if other.name == item.name]
    if any(also(other.name, item.name) for other in scene.items):
        return None
    if len(twins) == 1:
        colored = by_color and item.kind == "shape" and rng.random() < 0.4
        return f"the {item.color} {item.name}" if colored else f"the {item.name}"
    if by_color and item.kind == "shape" and sum(other.color == item.color for other in twins) == 1:
        return f"the {item.color} {item.name}"
    if sum(other.size == item.size for other in twins) == 1:
        return f"the {item.size} {item.name}"
    return None


def referable(scene: Scene, rng: random.Random, by_color: bool = True) -> list[tuple[str, Item]]:
    """Every item that can be spoken of without doubt, in random order."""
    named = [(refer(scene, item, rng, by_color), item) for item in scene.items]
    found = [(words, item) for words, item in named if words]
    rng.shuffle(found)
    return found


def counts(scene: Scene) -> Counter[str]:
    """How many there are of each shape and thing, of those whose number nobody would dispute."""
    numbers = Counter(item.name for item in scene.items if not item.is_written)
    return Counter({name: number for name, number in numbers.items() if clear_name(scene, name)})


def clear_name(scene: Scene, name: str) -> bool:
    """Whether nothing else in the picture could be taken for this."""
    if name in ("rectangle", "square") and any(item.style == "sign" for item in scene.items):
        return False
    return not any(also(item.name, name) for item in scene.items if item.name != name)


def is_absent(scene: Scene, name: str) -> bool:
    """Whether there is surely none of this in the picture."""
    if any(item.name == name for item in scene.items) or not clear_name(scene, name):
        return False
    bodies = any(item.name in THINGS and THINGS[item.name].category in _BODIES for item in scene.items)
    outside = scene.background.kind == "landscape" and name in ("cloud", "sun", "tree", "mountain", "moon", "snowflake")
    return not outside and not (bodies and name in THINGS and THINGS[name].category == "body part")


def absent(scene: Scene, rng: random.Random) -> str:
    """The name of something that is not there but might well be.

    Two things that training never shows together are not asked about either: their absence would be learned by heart.
    """
    near = [name for item in scene.items for setting in SETTINGS if item.name in setting for name in setting]
    while True:
        pool = rng.choice((near or SHAPES, near or SHAPES, tuple(THINGS), SHAPES))
        name = rng.choice(pool)
        if is_absent(scene, name) and not any(held_out_together(name, item.name) for item in scene.items):
            return name


def absent_colored(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    """A colour and a shape that are not together, though each is there where possible."""
    there = {(item.color, item.name) for item in scene.items if item.kind == "shape"}
    colors = [item.color for item in scene.items if item.kind == "shape" and item.color]
    names = [item.name for item in scene.items if item.kind == "shape"]
    for _ in range(20):
        pair = (rng.choice(colors + [rng.choice(COLORS)]), rng.choice(names + [rng.choice(SHAPES)]))
        surely = is_absent(scene, pair[1]) or (pair[1] in names and clear_name(scene, pair[1]))
        if pair not in there and surely and not held_out_shape(*pair):
            return pair
    return None


def many(name: str, number: int) -> str:
    """`one cat`, `three cats`, `no cats`."""
    if number == 1:
        words = singular(name).split(" ", 1)
        return f"one {words[1]}"
    return f"{COUNTS[number]} {plural(name)}"
