"""What stands how to what else. Where one could argue, there is no relation."""

from .scene import Item, Scene

_APART = 0.12  # least distance of two centres along the axis that is spoken of, of the long side
LEFT, RIGHT, ABOVE, BELOW = "to the left of", "to the right of", "above", "below"
OPPOSITE = {LEFT: RIGHT, RIGHT: LEFT, ABOVE: BELOW, BELOW: ABOVE}


def relation(scene: Scene, one: Item, other: Item) -> str | None:
    """How `one` stands to `other`, along the axis on which they are clearly further apart."""
    dx, dy = one.center[0] - other.center[0], one.center[1] - other.center[1]
    if (
        max(abs(dx), abs(dy)) < _APART * scene.long_side
        or not max(abs(dx), abs(dy)) / (min(abs(dx), abs(dy)) + 1e-9) > 1.25
    ):
        return None
    if abs(dx) > abs(dy):
        return LEFT if dx < 0 else RIGHT
    return ABOVE if dy < 0 else BELOW


def stands(scene: Scene, one: Item, words: str, other: Item) -> bool | None:
    """Whether `one` stands so to `other`; None where one could argue."""
    axis = 0 if words in (LEFT, RIGHT) else 1
    along = one.center[axis] - other.center[axis]
    across = abs(one.center[1 - axis] - other.center[1 - axis])
    before = words in (LEFT, ABOVE)
    if abs(along) < _APART * scene.long_side:
        return False if across > 2 * _APART * scene.long_side and abs(along) < 0.02 * scene.long_side else None
    if (along < 0) != before:
        return False
    return True if across < 1.5 * abs(along) else None


def larger(one: Item, other: Item) -> bool | None:
    """Whether `one` is clearly larger than `other`; None where they are too much alike."""
    ratio = one.length / other.length
    return None if 1 / 1.4 < ratio < 1.4 else ratio > 1
