"""How does one thing stand to another?"""

import math

from ..relations import OPPOSITE, relation, stands
from ..scene import Item, Scene
from .asked import Asked, Voice, capital, yes_or_no
from .position import other_names
from .refer import referable

_HOW = (
    "Where is {a} in relation to {b}?", "How does {a} stand to {b}?", "Where is {a} compared with {b}?",
    "On which side of {b} is {a}?", "Is {a} to the left of, to the right of, above or below {b}?",
    "Where is {a}, relative to {b}?", "What is the position of {a} relative to {b}?", "Looking at {b}, where is {a}?",
    "In which direction from {b} is {a}?", "In what direction is {a} from {b}?",
    "Tell me where {a} is in relation to {b}.", "Can you tell me on which side of {b} {a} is?",
    "Starting at {b}, where is {a}?", "Going from {b} to {a}, which way is it?", "Compared to {b}, where is {a}?",
    "With respect to {b}, where is {a}?", "Is {a} left, right, above or below {b}?", "Which way from {b} is {a}?",
    "If I look at {b}, where is {a} then?",
)  # fmt: skip
_HOW_HELD_OUT = ("Seen from {b}, where is {a}?",)
_WHETHER = (
    "Is {a} {rel} {b}?", "Is {a} {rel} {b} in the picture?", "Can you see {a} {rel} {b}?", "Do you see {a} {rel} {b}?",
    "Does {a} stand {rel} {b}?", "Is it true that {a} is {rel} {b}?", "Is {a} drawn {rel} {b}?",
    "Do you think {a} is {rel} {b}?", "Tell me if {a} is {rel} {b}.", "I think {a} is {rel} {b}. Am I right?",
    "Check whether {a} is {rel} {b}.", "Can it be that {a} is {rel} {b}?", "Has {a} been put {rel} {b}?",
)  # fmt: skip
_WHETHER_HELD_OUT = ("Would you say that {a} is {rel} {b}?",)
WHAT_IS_BESIDE = (
    "What is {rel} {b}?", "Which thing is {rel} {b}?", "What do you see {rel} {b}?", "What stands {rel} {b}?",
    "What can you see {rel} {b}?", "What is shown {rel} {b}?", "Tell me what is {rel} {b}.",
    "What has been put {rel} {b}?", "What thing do you see {rel} {b}?", "Can you tell me what is {rel} {b}?",
    "What is drawn {rel} {b}?", "Look at {b}. What is {rel} it?", "Which thing stands {rel} {b}?",
)  # fmt: skip
_WHAT_HELD_OUT = ("Which item is located {rel} {b}?",)
_BETWEEN = ("What is between {b} and {c}?", "Which thing is between {b} and {c}?", "What stands between {b} and {c}?")
_SAID = {
    "to the left of": ("to the left of", "left of", "on the left of"),
    "to the right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_SHORT = {"to the left of": "left", "to the right of": "right", "above": "above", "below": "below"}


def relation_(scene: Scene, voice: Voice) -> Asked | None:
    if len(scene.items) < 2:
        return None
    return voice.rng.choices((_how, _whether, _what, _between), (30, 32, 25, 13))[0](scene, voice)


def _pair(scene: Scene, voice: Voice) -> tuple[tuple[str, Item], tuple[str, Item], str] | None:
    named = referable(scene, voice.rng)
    for a in named:
        for b in named:
            if a is not b and (words := relation(scene, a[1], b[1])):
                return a, b, words
    return None


def _how(scene: Scene, voice: Voice) -> Asked | None:
    if (pair := _pair(scene, voice)) is None:
        return None
    (a, _), (b, _), words = pair
    wrong = tuple(short for known, short in _SHORT.items() if known != words)
    question = voice.ask(_HOW, _HOW_HELD_OUT, a=a, b=b)
    return Asked("relation", question, _SHORT[words], f"{capital(a)} is {words} {b}.", wrong=wrong)


def _whether(scene: Scene, voice: Voice) -> Asked | None:
    if (pair := _pair(scene, voice)) is None:
        return None
    (a, _), (b, _), words = pair
    truth = voice.truth("relation")
    said = voice.rng.choice(_SAID[words if truth else OPPOSITE[words]])
    question = voice.ask(_WHETHER, _WHETHER_HELD_OUT, a=a, b=b, rel=said)
    return Asked("relation", question, yes_or_no(truth), f"{'Yes' if truth else 'No'}, {a} is {words} {b}.",
                 wrong=(yes_or_no(not truth),))  # fmt: skip


def _what(scene: Scene, voice: Voice) -> Asked | None:
    """What stands on one side of something, where only one thing does and nothing else nearly does."""
    for b, other in referable(scene, voice.rng):
        for words in voice.rng.sample(sorted(OPPOSITE), 4):
            verdicts = [(item, stands(scene, item, words, other)) for item in scene.items if item is not other]
            there = [item for item, verdict in verdicts if verdict]
            if len(there) == 1 and all(verdict is not None for _, verdict in verdicts) and not there[0].is_written:
                question = voice.ask(WHAT_IS_BESIDE, _WHAT_HELD_OUT, b=b, rel=words)
                return _found(question, there[0], f"is {words} {b}", voice)
    return None


def _between(scene: Scene, voice: Voice) -> Asked | None:
    named = referable(scene, voice.rng)
    for b, one in named:
        for c, other in named:
            if one is other:
                continue
            inside = [i for i in scene.items if i not in (one, other) and _lies_between(scene, i, one, other)]
            if len(inside) == 1 and not inside[0].is_written:
                question = voice.ask(_BETWEEN, ("What do you find in the middle between {b} and {c}?",), b=b, c=c)
                return _found(question, inside[0], f"is between {b} and {c}", voice)
    return None


def _lies_between(scene: Scene, item: Item, one: Item, other: Item) -> bool:
    """Near the middle of the line from one to the other; a thing that nearly does counts as well, to be careful."""
    (x, y), (x1, y1), (x2, y2) = item.center, one.center, other.center
    length = math.hypot(x2 - x1, y2 - y1)
    along = ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / length**2
    off = abs((x - x1) * (y2 - y1) - (y - y1) * (x2 - x1)) / length
    return 0.2 < along < 0.8 and off < 0.15 * scene.long_side


def _found(question: str, item: Item, where: str, voice: Voice) -> Asked:
    said = f"the {item.color} {item.name}" if item.kind == "shape" else f"the {item.name}"
    return Asked("relation", question, item.name, f"{capital(said)} {where}.", wrong=other_names(item, voice))
