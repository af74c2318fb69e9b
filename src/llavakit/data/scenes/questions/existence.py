"""Is there one? As often no as yes, and no is not easy to guess."""

from ..captions import plural, singular
from ..scene import Item, Scene
from ..things import THINGS
from ..vocabulary import SIZES
from .asked import Asked, Voice, yes_or_no
from .refer import absent, absent_colored, clear_name, many

_WORDINGS = (
    "Is there {a} in the picture?", "Is there {a}?", "Do you see {a}?", "Can you see {a} in the image?",
    "Is there {a} in the image?", "Does the picture show {a}?", "Are there any {s}?",
    "Are there any {s} in the picture?", "Do you see any {s}?", "Is there {a} here?", "Is there {a} in this drawing?",
    "Is {a} in the picture?", "Is {a} shown?", "Is {a} to be seen?", "Can {a} be seen in the picture?",
    "Can you see any {s}?", "Can you make out {a}?", "Does the image show {a}?", "Does the picture have {a} in it?",
    "Did they draw {a}?", "Does this drawing include {a}?", "Has anybody drawn {a}?", "Have any {s} been drawn?",
    "Any {s} here?", "Any {s} in the image?", "Are there {s}?", "Are {s} in the picture?", "Do you notice {a}?",
    "Do you notice any {s} in this drawing?", "Is there {a} anywhere?", "Could there be {a} in the image?",
    "Tell me if there is {a} in the picture.", "Please check whether there is {a}.", "I wonder if there is {a}.",
    "Is it true that there is {a} in the picture?", "Do I have {a} in my drawing?", "Look at it. Is there {a}?",
)  # fmt: skip
_HELD_OUT = ("Can you spot {a} here?", "Does this image contain {a}?", "Would you find any {s} in this picture?")
_WRITING = ("Is there a word or a number in the picture?", "Is anything written in the picture?", "Is there any text?")
_ANIMALS = ("Are there any animals?", "Is there an animal in the picture?", "Do you see an animal?")


def existence(scene: Scene, voice: Voice) -> Asked | None:
    """One question whose answer is yes or no, each as likely."""
    rng, truth = voice.rng, voice.truth("existence")
    first = rng.choices((_plain, _colored, _sized, _written, _animal), (48, 34, 5, 8, 5))[0]
    for family in (first, _plain, _written):  # another one may have this answer where the first has not
        if asked := family(scene, voice, truth):
            return asked
    return None


def _plain(scene: Scene, voice: Voice, truth: bool) -> Asked | None:
    present = sorted({item.name for item in scene.items if not item.is_written and clear_name(scene, item.name)})
    if truth and not present:
        return None
    name = voice.rng.choice(present) if truth else absent(scene, voice.rng)
    number = sum(item.name == name for item in scene.items)
    question = voice.ask(_WORDINGS, _HELD_OUT, a=singular(name), s=plural(name))
    there = f"there are {many(name, number)}" if number > 1 else f"there is {singular(name)}"
    if not truth:
        there = f"there is no {bare(name)}"
    return _answered(question, truth, there)


def _colored(scene: Scene, voice: Voice, truth: bool) -> Asked | None:
    """A shape with its colour; the false one has the colour of one thing and the form of another."""
    shapes = [(item.color, item.name) for item in scene.items if item.kind == "shape" and clear_name(scene, item.name)]
    if not shapes:
        return None
    pair = voice.rng.choice(shapes) if truth else absent_colored(scene, voice.rng)
    if pair is None:
        return None
    name = f"{pair[0]} {pair[1]}"
    number = shapes.count(pair)
    question = voice.ask(_WORDINGS, _HELD_OUT, a=singular(name), s=plural(name))
    there = f"there are {many(name, number)}" if number > 1 else f"there is {singular(name)}"
    return _answered(question, truth, there if truth else f"there is no {name}")


def _sized(scene: Scene, voice: Voice, truth: bool) -> Asked | None:
    items = [item for item in scene.items if item.size and clear_name(scene, item.name)]
    if not items:
        return None
    item = voice.rng.choice(items)
    taken = {other.size for other in items if other.name == item.name}
    sizes = [size for size in SIZES if (size in taken) == truth and (truth or _far(size, taken))]
    if not sizes:
        return None
    name = f"{voice.rng.choice(sizes)} {bare(item.name)}"
    question = voice.ask(_WORDINGS[:6], _HELD_OUT[:2], a=singular(name))
    return _answered(question, truth, f"there is {singular(name) if truth else 'no ' + name}")


def _far(size: str, taken: set[str | None]) -> bool:
    """Large is not asked about where there is a medium one."""
    return size != "medium" and "medium" not in taken


def _written(scene: Scene, voice: Voice, truth: bool) -> Asked | None:
    written: list[Item] = [item for item in scene.items if item.is_written]
    if bool(written) != truth:
        return None
    question = voice.ask(_WRITING, ("Does the picture have any writing in it?",))
    if not truth:
        return _answered(question, truth, "nothing is written in the picture")
    item = written[0]
    said = f'the word "{item.name}"' if item.kind == "word" else f"the number {item.name}"
    return _answered(question, truth, f"there is {said}")


def _animal(scene: Scene, voice: Voice, truth: bool) -> Asked | None:
    names = [item.name for item in scene.items if item.name in THINGS]
    animals = [name for name in names if THINGS[name].category == "animal"]
    if bool(animals) != truth or (not truth and not names):
        return None
    question = voice.ask(_ANIMALS, ("Can any animal be seen here?",))
    number = names.count(animals[0]) if animals else 0
    there = (
        f"there are {many(animals[0], number)}" if number > 1 else f"there is {singular(animals[0])}" if animals else ""
    )
    return _answered(question, truth, there if truth else "there is no animal")


def bare(name: str) -> str:
    """A thing without its article: `cat`, `loaf of bread`."""
    return singular(name).split(" ", 1)[1]


def _answered(question: str, truth: bool, there: str) -> Asked:
    place = "" if there.endswith("picture") else " in the picture"
    sentence = f"{'Yes' if truth else 'No'}, {there}{place}."
    return Asked("existence", question, yes_or_no(truth), sentence, wrong=(yes_or_no(not truth),))
