"""How many are there? Numbers from none to six, none of them much more likely than the next."""

from collections import Counter

from ..captions import plural, singular
from ..scene import Scene
from .asked import Asked, Voice
from .refer import absent, clear_name, counts, many

_WORDINGS = (
    "How many {s} are there?", "How many {s} are in the picture?", "How many {s} do you see?",
    "How many {s} can you see?", "Count the {s}.", "What is the number of {s}?", "How many {s} are there in the image?",
    "How many {s} does the picture show?", "How many {s} are shown?", "How many {s} have been drawn?",
    "How many {s} are here?", "How many {s} can be seen?", "How many {s} in the picture?", "Number of {s}?",
    "Can you count the {s}?", "Please count the {s}.", "I want to know how many {s} there are.",
    "Can you tell me how many {s} there are?", "Give me the number of {s}.", "What number of {s} do you see?",
    "Look at the {s}. How many are there?", "How many of the things are {s}?", "Do you know how many {s} there are?",
)  # fmt: skip
_HELD_OUT = ("Could you count the {s} for me?", "Tell me how many {s} this picture has.")
_WEIGHTS = {0: 0.07, 1: 0.07, 2: 1.0, 3: 1.6, 4: 1.7, 5: 2.0, 6: 0.5}


def count(scene: Scene, voice: Voice) -> Asked | None:
    numbers = counts(scene)
    if voice.rng.random() < 0.35:
        numbers += _colored(scene)
    numbers[absent(scene, voice.rng)] = 0
    weights = [_WEIGHTS[number] for number in numbers.values()]
    if voice.rng.random() > max(weights) + 0.02:
        return None
    name = voice.rng.choices(list(numbers), weights)[0]
    return counted("count", voice.ask(_WORDINGS, _HELD_OUT, s=plural(name)), name, numbers[name], voice)


def _colored(scene: Scene) -> Counter[str]:
    shapes = (item for item in scene.items if item.kind == "shape" and clear_name(scene, item.name))
    return Counter(f"{item.color} {item.name}" for item in shapes)


def counted(kind: str, question: str, name: str, number: int, voice: Voice) -> Asked:
    """A question answered by a number of something."""
    there = f"There is {many(name, number)}." if number == 1 else f"There are {many(name, number)}."
    if number == 0:
        there = f"There is no {singular(name).split(' ', 1)[1]} in the picture."
    return Asked(kind, question, str(number), there, wrong=other_numbers(number, voice))


def other_numbers(number: int, voice: Voice) -> tuple[str, ...]:
    near = [str(n) for n in range(max(0, number - 3), number + 4) if n != number]
    return tuple(voice.rng.sample(near, 3))
