"""Which are there more of, and are they alike?"""

from ..captions import plural
from ..scene import Scene
from .asked import Asked, Voice, yes_or_no
from .refer import absent, counts, many, referable

_MORE = (
    "Are there more {a} than {b}?", "Do you see more {a} than {b}?", "Can you see more {a} than {b}?",
    "Does the picture have more {a} than {b}?", "Are the {a} more than the {b}?", "Have more {a} been drawn than {b}?",
    "Is it true that there are more {a} than {b}?", "Tell me if there are more {a} than {b}.",
)  # fmt: skip
_WHICH = (
    "Which are there more of, {a} or {b}?", "Are there more {a} or more {b}?", "What are there more of, {a} or {b}?",
    "Do you see more {a} or more {b}?", "Compare the {a} with the {b}. Which are more?", "Which are more, {a} or {b}?",
    "Of {a} and {b}, which are there more of?", "Tell me which are more, the {a} or the {b}.",
)  # fmt: skip
_SAME = (
    "Do {a} and {b} have the same color?", "Are {a} and {b} the same color?", "Is {a} the same color as {b}?",
    "Do {a} and {b} share a color?", "Has {a} the color of {b}?", "Are {a} and {b} of one color?",
    "Is the color of {a} the same as that of {b}?", "Tell me if {a} and {b} have the same color.",
    "Were {a} and {b} drawn in the same color?",
)  # fmt: skip
_AS_MANY = (
    "Are there as many {a} as {b}?", "Is the number of {a} the same as the number of {b}?",
    "Do you see as many {a} as {b}?", "Are there just as many {a} as {b}?", "Are {a} and {b} the same in number?",
    "Have as many {a} been drawn as {b}?", "Is it true that there are as many {a} as {b}?",
)  # fmt: skip


def compare(scene: Scene, voice: Voice) -> Asked | None:
    """Mostly yes or no, each as likely."""
    if voice.rng.random() < 0.25:
        return _which(scene, voice)
    truth = voice.truth("compare")
    first = voice.rng.choices((_more, _as_many, _same_color), (40, 20, 40))[0]
    for family in (first, _more):  # another one may have this answer where the first has not
        if asked := family(scene, voice, truth):
            return asked
    return None


def _two(scene: Scene, voice: Voice) -> list[tuple[str, int]]:
    numbers = list(counts(scene).items())
    if len(numbers) == 1:
        numbers.append((absent(scene, voice.rng), 0))
    voice.rng.shuffle(numbers)
    return numbers[:2]


def _more(scene: Scene, voice: Voice, truth: bool) -> Asked | None:
    two = _two(scene, voice)
    if len(two) < 2 or two[0][1] == two[1][1]:
        return None
    (a, more), (b, less) = sorted(two, key=lambda pair: pair[1], reverse=truth)
    question = voice.ask(_MORE, ("Is the number of {a} greater than the number of {b}?",), a=plural(a), b=plural(b))
    return _answered(question, truth, f"there {_be(more)} {many(a, more)} and {many(b, less)}")


def _as_many(scene: Scene, voice: Voice, truth: bool) -> Asked | None:
    two = _two(scene, voice)
    if len(two) < 2 or (two[0][1] == two[1][1]) != truth:
        return None
    (a, m), (b, n) = two
    question = voice.ask(_AS_MANY, ("Does the picture have equally many {a} and {b}?",), a=plural(a), b=plural(b))
    return _answered(question, truth, f"there {_be(m)} {many(a, m)} and {many(b, n)}")


def _which(scene: Scene, voice: Voice) -> Asked | None:
    two = _two(scene, voice)
    if len(two) < 2 or two[0][1] == two[1][1]:
        return None
    best, rest = sorted((pair for pair in two), key=lambda pair: -pair[1])
    question = voice.ask(
        _WHICH, ("What is there a larger number of, {a} or {b}?",), a=plural(two[0][0]), b=plural(two[1][0])
    )
    sentence = f"There are more {plural(best[0])} than {plural(rest[0])}."
    return Asked("compare", question, plural(best[0]), sentence, wrong=(plural(rest[0]),))


def _same_color(scene: Scene, voice: Voice, truth: bool) -> Asked | None:
    named = [(words, item) for words, item in referable(scene, voice.rng, by_color=False) if item.color]
    for a, one in named:
        for b, other in named:
            if one is not other and (one.color == other.color) == truth:
                question = voice.ask(_SAME, ("Have {a} and {b} been given one and the same color?",), a=a, b=b)
                told = f"both are {one.color}" if truth else f"{a} is {one.color} and {b} is {other.color}"
                return _answered(question, truth, told)
    return None


def _be(number: int) -> str:
    return "is" if number == 1 else "are"


def _answered(question: str, truth: bool, told: str) -> Asked:
    sentence = f"{'Yes' if truth else 'No'}, {told}."
    return Asked("compare", question, yes_or_no(truth), sentence, wrong=(yes_or_no(not truth),))
