"""What training never shows: pairs, words, a font and wordings that only the held-out split may use.

Every rule is a plain function of the names, so that anybody can check any picture or sentence against it.
"""

from typing import Literal
from zlib import crc32

from .fonts import HELD_OUT_FONT
from .scene import Scene

Split = Literal["train", "heldout"]

# each colour and each shape is still seen in training, only not this one in that one
HELD_OUT_PAIRS = frozenset({
    ("green", "heart"), ("orange", "diamond"), ("purple", "triangle"), ("brown", "oval"), ("pink", "square"),
    ("gray", "circle"), ("black", "cross"), ("yellow", "rectangle"), ("blue", "star"), ("red", "arrow"),
})  # fmt: skip


def held_out_shape(color: str | None, shape: str) -> bool:
    return (color, shape) in HELD_OUT_PAIRS


def held_out_together(one: str, other: str) -> bool:
    """One pair of different things in twenty never stands in one training picture."""
    return one != other and crc32("+".join(sorted((one, other))).encode()) % 20 == 0


def held_out_word(letters: str) -> bool:
    """One word or number in ten, of three characters and more, is never written in training."""
    return len(letters) >= 3 and crc32(letters.encode()) % 10 == 0


def held_out_reasons(scene: Scene) -> tuple[str, ...]:
    """Why a picture belongs to the held-out split; empty for a picture of the training split."""
    things = sorted({item.name for item in scene.items if item.kind == "thing"})
    written = [item for item in scene.items if item.is_written]
    reasons = {
        "pair": any(item.kind == "shape" and held_out_shape(item.color, item.name) for item in scene.items),
        "together": any(held_out_together(a, b) for a in things for b in things),
        "word": any(held_out_word(item.name) for item in written),
        "font": any(item.font == HELD_OUT_FONT for item in written),
    }
    return tuple(reason for reason, holds in reasons.items() if holds)
