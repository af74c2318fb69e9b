"""How large is it, and which is larger?"""

from ..relations import larger
from ..scene import Item, Scene
from ..vocabulary import SIZES
from .asked import Asked, Voice, capital
from .refer import referable

_WHICH = (
    "Which is {more}, {a} or {b}?", "Which one is {more}, {a} or {b}?", "What is {more}, {a} or {b}?",
    "Is {a} or {b} {more}?", "Which of the two is {more}, {a} or {b}?", "Tell me which is {more}, {a} or {b}.",
    "Compare {a} with {b}. Which is {more}?", "Between {a} and {b}, which one is {more}?",
)  # fmt: skip
HOW_LARGE = (
    "How big is {it}?", "What size is {it}?", "How large is {it}?", "Is {it} small, medium or large?",
    "What is the size of {it}?", "What size does {it} have?", "Tell me how large {it} is.",
    "Can you say how big {it} is?",
)  # fmt: skip
_MOST = (
    "What is the {most} thing in the picture?", "Which thing is the {most}?", "What is the {most} one?",
    "Which one is the {most}?", "Of the things you see, which is the {most}?", "Tell me which thing is the {most}.",
    "Find the {most} thing.", "What has been drawn the {most}?",
)  # fmt: skip
_KEPT = {"small": 0.4, "medium": 0.6, "large": 1.0}  # so that each size is asked about as often


def size(scene: Scene, voice: Voice) -> Asked | None:
    return voice.rng.choices((_which, _how, _most), (50, 25, 25))[0](scene, voice)


def _which(scene: Scene, voice: Voice) -> Asked | None:
    named = _drawn(scene, voice)
    for a, one in named:
        for b, other in named:
            if one is not other and (first := larger(one, other)) is not None:
                up = voice.rng.random() < 0.5
                more = voice.rng.choice(("larger", "bigger") if up else ("smaller",))
                best, rest = (a, b) if first == up else (b, a)
                question = voice.ask(_WHICH, ("Of {a} and {b}, which is {more}?",), a=a, b=b, more=more)
                return Asked("size", question, best.removeprefix("the "), f"{capital(best)} is {more} than {rest}.",
                             wrong=(rest.removeprefix("the "),))  # fmt: skip
    return None


def _how(scene: Scene, voice: Voice) -> Asked | None:
    named = [(words, item) for words, item in _drawn(scene, voice) if item.size and item.size not in words]
    if not named:
        return None
    words, item = named[0]
    if voice.rng.random() > _KEPT[item.size or "large"]:
        return None
    question = voice.ask(HOW_LARGE, ("Of what size is {it}?",), it=words)
    wrong = tuple(other for other in SIZES if other != item.size)
    return Asked("size", question, item.size or "", f"{capital(words)} is {item.size}.", wrong=wrong)


def _most(scene: Scene, voice: Voice) -> Asked | None:
    named = _drawn(scene, voice)
    if len(scene.items) < 2 or len(named) != len(scene.items):
        return None
    up = voice.rng.random() < 0.5
    for words, item in named:
        if all(larger(item, other) is up for _, other in named if other is not item):
            most = voice.rng.choice(("largest", "biggest") if up else ("smallest",))
            question = voice.ask(_MOST, ("Which of all the things is the {most}?",), most=most)
            wrong = tuple(other.removeprefix("the ") for other, _ in named if other != words)[:3]
            return Asked("size", question, words.removeprefix("the "), f"{capital(words)} is the {most}.", wrong=wrong)
    return None


def _drawn(scene: Scene, voice: Voice) -> list[tuple[str, Item]]:
    return [(words, item) for words, item in referable(scene, voice.rng) if not item.is_written]
