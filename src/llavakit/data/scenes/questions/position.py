"""Where in the picture is it, and what is there?"""

from ..captions import at, singular
from ..scene import Item, Scene, place
from ..things import SETTINGS, THINGS, also
from ..vocabulary import PLACES, SHAPES
from .asked import Asked, Voice, capital
from .refer import referable

WHERE = (
    "Where is {it}?", "Where is {it} in the picture?", "In which part of the picture is {it}?",
    "Where do you see {it}?", "What is the position of {it}?", "Where can I find {it}?", "Where exactly is {it}?",
    "Where in the image is {it}?", "Where in this drawing is {it}?", "Where has {it} been drawn?",
    "Where was {it} put?", "Where did they put {it}?", "Where should I look for {it}?",
    "Can you tell me where {it} is?", "Tell me where {it} is.", "Show me where {it} is.",
    "Please tell me the position of {it}.", "In what part of the image is {it}?", "What part of the image is {it} in?",
    "Which part of the picture has {it} in it?", "What is the place of {it}?", "I cannot see {it}. Where is it?",
    "Point me to {it}.", "On what part of the page is {it}?", "Do you know where {it} is?",
)  # fmt: skip
_WHERE_HELD_OUT = ("Whereabouts in the image is {it}?", "At which place is {it}?")
_WHAT = (
    "What is {there}?", "What is {there} of the picture?", "What do you see {there}?", "Which thing is {there}?",
    "What is shown {there}?", "What can you see {there}?", "What did they put {there}?", "What stands {there}?",
    "Tell me what is {there}.", "Can you tell me what is {there}?", "What thing do you see {there}?",
    "What is it that is {there}?", "Look {there}. What is it?",
)  # fmt: skip
_WHAT_HELD_OUT = ("What has been drawn {there}?",)
_ALL = tuple(name for row in PLACES for name in row)


def position(scene: Scene, voice: Voice) -> Asked | None:
    """Where something is, if that is clear."""
    found = [(words, item, where) for words, item in referable(scene, voice.rng) if (where := place(scene, item))]
    if not found:
        return None
    words, _, where = found[0]
    if where == "center" and voice.rng.random() < 0.1:
        return None
    wrong = tuple(voice.rng.sample([p for p in _ALL if p != where], 3))
    question = voice.ask(WHERE, _WHERE_HELD_OUT, it=words)
    return Asked("position", question, where, f"{capital(words)} is {at(where)}.", wrong=wrong)


def what_is_there(scene: Scene, voice: Voice) -> Asked | None:
    """What stands at a place where nothing else is near."""
    items = list(scene.items)
    voice.rng.shuffle(items)
    for item in items:
        where = place(scene, item)
        if where and len(items) > 1 and all(_elsewhere(scene, item, other) for other in items if other is not item):
            question = voice.ask(_WHAT, _WHAT_HELD_OUT, there=at(where))
            return named(question, item, capital(at(where)), voice)
    return None


def _elsewhere(scene: Scene, item: Item, other: Item) -> bool:
    """Whether another thing is clearly at another place, and does not reach over to this one."""
    x, y = item.center
    left, top, right, bottom = other.box
    apart = max(left - x, x - right, top - y, y - bottom) > 0.05 * scene.long_side
    return apart and place(scene, other) not in (None, place(scene, item))


def named(question: str, item: Item, there: str, voice: Voice) -> Asked:
    """A question answered by what an item is."""
    if item.is_written:
        letters = f'"{item.name}"' if item.kind == "word" else item.name
        return Asked("reading", question, item.name, f"{there} is the {item.kind} {letters}.")
    said = singular(f"{item.color} {item.name}") if item.kind == "shape" else singular(item.name)
    return Asked("name", question, item.name, f"{there} is {said}.", wrong=other_names(item, voice))


def other_names(item: Item, voice: Voice) -> tuple[str, ...]:
    """Three names this does not go by."""
    near = SHAPES if item.kind == "shape" else [n for s in SETTINGS if item.name in s for n in s] + list(THINGS)[:40]
    names = sorted({n for n in near if n != item.name and not also(n, item.name)})
    return tuple(voice.rng.sample(names, 3))
