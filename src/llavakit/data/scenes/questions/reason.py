"""Questions that take a step or two: add up, find one thing by another, know what things are."""

from collections import Counter

from ..relations import OPPOSITE, stands
from ..scene import Scene
from ..things import FLIES, FOOD, SWIMS, THINGS
from ..vocabulary import COUNTS
from .asked import Asked, Voice
from .count import other_numbers
from .position import other_names
from .refer import clear_name, counts, many, referable

_ALL = (
    "How many things are there altogether?", "How many things are in the picture?", "How many items are there in all?",
    "How many things do you see in total?", "What is the number of all things?", "Count all the things.",
    "Count everything in the picture.", "How many things have been drawn in total?",
    "How many things are there in all?",
)  # fmt: skip
_OF_KIND = (
    "How many {s} are there?", "How many {s} do you see?", "How many {s} are in the picture?", "Count all the {s}.",
    "How many {s} are there in all?", "What is the number of {s}?", "How many {s} can you count?",
    "How many {s} have been drawn altogether?",
)  # fmt: skip
_BY_ANOTHER = (
    "What color is the thing {rel} {b}?", "What is the color of the thing {rel} {b}?",
    "Which color has the thing {rel} {b}?", "Tell me the color of the thing {rel} {b}.",
    "What color does the thing {rel} {b} have?", "Look {rel} {b}. What color is the thing there?",
)  # fmt: skip
_ONE_MORE = (
    "If one more {n} were drawn, how many would there be?", "How many {s} would there be with one more?",
    "If one {n} were erased, how many would be left?", "How many {s} would be left without one of them?",
)  # fmt: skip
_ODD = (
    "Which one is different?",
    "Which one does not belong?",
    "What is the odd one out?",
    "Which thing is not like the others?",
)
_DOUBTFUL = {"chicken", "penguin", "unicorn", "crab", "turtle", "crocodile", "frog", "duck", "dinosaur", "ant"}
_SOUNDING = {"bell", "phone", "television", "computer", "microphone"}
_CARRYING = {"horse", "camel", "skateboard", "elephant"}


def reason(scene: Scene, voice: Voice) -> Asked | None:
    families = (_altogether, _of_kind, _by_another, _one_more, _odd, _letters, _can)
    return voice.rng.choices(families, (20, 18, 22, 12, 14, 8, 14))[0](scene, voice)


def _altogether(scene: Scene, voice: Voice) -> Asked | None:
    number = len(scene.items)
    if any(item.is_written for item in scene.items) or (number == 1 and voice.rng.random() < 0.8):
        return None
    question = voice.ask(_ALL, ("Adding everything up, how many things are there?",))
    said = "There is one thing." if number == 1 else f"There are {COUNTS[number]} things."
    return Asked("reason", question, str(number), said, wrong=other_numbers(number, voice))


def _of_kind(scene: Scene, voice: Voice) -> Asked | None:
    """How many shapes, animals, vehicles, or shapes of a colour."""
    kinds: Counter[str] = Counter()
    for item in scene.items:
        if item.kind == "shape":
            kinds.update(("shape", f"{item.color} shape"))
        elif item.kind == "thing" and THINGS[item.name].category in ("animal", "vehicle"):
            kinds[THINGS[item.name].category] += 1
    if not kinds:
        return None
    name = voice.rng.choice(
        [k for k, number in kinds.items() if number == max(kinds.values()) or voice.rng.random() < 0.3]
    )
    if kinds[name] == 1 and voice.rng.random() < 0.8:
        return None
    question = voice.ask(_OF_KIND, ("Taken together, how many {s} are there?",), s=f"{name}s")
    said = f"There is one {name}." if kinds[name] == 1 else f"There are {COUNTS[kinds[name]]} {name}s."
    return Asked("reason", question, str(kinds[name]), said, wrong=other_numbers(kinds[name], voice))


def _by_another(scene: Scene, voice: Voice) -> Asked | None:
    """The colour of the one thing that stands so to another."""
    for b, other in referable(scene, voice.rng):
        for words in voice.rng.sample(sorted(OPPOSITE), 4):
            verdicts = [(item, stands(scene, item, words, other)) for item in scene.items if item is not other]
            there = [item for item, verdict in verdicts if verdict]
            if (
                len(there) == 1
                and all(v is not None for _, v in verdicts)
                and there[0].color
                and not there[0].is_written
            ):
                question = voice.ask(_BY_ANOTHER, ("Name the color of what is {rel} {b}.",), rel=words, b=b)
                item = there[0]
                sentence = f"The thing {words} {b} is the {item.name}, and it is {item.color}."
                return Asked("reason", question, item.color or "", sentence)
    return None


def _one_more(scene: Scene, voice: Voice) -> Asked | None:
    numbers = [(name, number) for name, number in counts(scene).items() if 2 <= number <= 5]
    if not numbers:
        return None
    name, number = voice.rng.choice(numbers)
    plural_ = many(name, 2).split(" ", 1)[1]
    question = voice.ask(_ONE_MORE, n=many(name, 1).split(" ", 1)[1], s=plural_)
    less = "erased" in question or "left" in question
    result = number - 1 if less else number + 1
    step = "One less" if less else "One more"
    sentence = f"There are {many(name, number)}. {step} makes {COUNTS[result]}."
    return Asked("reason", question, str(result), sentence, wrong=other_numbers(result, voice))


def _odd(scene: Scene, voice: Voice) -> Asked | None:
    """The single one among equal ones."""
    looks = Counter((item.kind, item.name, item.color if item.kind == "shape" else None) for item in scene.items)
    single = [key for key, number in looks.items() if number == 1]
    if len(looks) != 2 or len(single) != 1 or len(scene.items) < 3 or any(item.is_written for item in scene.items):
        return None
    item = next(i for i in scene.items if i.name == single[0][1] and (i.kind != "shape" or i.color == single[0][2]))
    rest = next(key for key, number in looks.items() if number > 1)
    words = f"{item.color} {item.name}" if item.kind == "shape" else item.name
    others = f"{rest[2]} {rest[1]}" if rest[0] == "shape" else rest[1]
    question = voice.ask(_ODD, ("One of these is unlike the rest. Which one?",))
    sentence = f"The {words} is different. The others are {many(others, 2).split(' ', 1)[1]}."
    return Asked("reason", question, words, sentence, wrong=(others,))


def _letters(scene: Scene, voice: Voice) -> Asked | None:
    words = [item for item in scene.items if item.kind == "word"]
    if len(words) != 1:
        return None
    word, which = words[0].name, voice.rng.choice(("first", "last", "number"))
    if which == "number":
        question = voice.ask(("How many letters does the word have?", "How many letters are in the word?"))
        return Asked("reason", question, str(len(word)), f"The word has {COUNTS[len(word)]} letters.",
                     wrong=other_numbers(len(word), voice))  # fmt: skip
    question = voice.ask(("What is the {w} letter of the word?", "Which letter is the {w} one in the word?"), w=which)
    letter = word[0] if which == "first" else word[-1]
    return Asked("reason", question, letter, f"The {which} letter of the word is {letter}.")


def _can(scene: Scene, voice: Voice) -> Asked | None:
    """What one of the things can do or is good for, where only one can."""
    things = {item.name for item in scene.items if item.kind == "thing"}
    if len(things) < 2 or things & _DOUBTFUL or any(item.is_written for item in scene.items):
        return None
    animals = {name for name in things if THINGS[name].category == "animal"}
    several = len(animals) > 1
    tests = [
        (animals & FLIES, ("Which animal can fly?", "Which of the animals can fly?"), "can fly", several),
        (animals & SWIMS, ("Which animal lives in the water?",), "lives in the water", several),
        (_of(things, FOOD), ("What can you eat?", "Which of the things can be eaten?"), "can be eaten", not animals),
        (_of(things, ("instrument",)), ("What can you play music on?",), "makes music", not things & _SOUNDING),
        (
            _of(things, ("vehicle",)),
            ("What can you travel in or on?",),
            "can be travelled in or on",
            not things & _CARRYING,
        ),
    ]
    fitting = [(next(iter(names)), asked, does) for names, asked, does, clear in tests if len(names) == 1 and clear]
    if not fitting:
        return None
    name, asked, does = voice.rng.choice(fitting)
    item = next(item for item in scene.items if item.name == name)
    many_ = sum(other.name == name for other in scene.items) > 1
    if many_ or not clear_name(scene, name):
        return None
    rest = tuple(sorted(things - {name}))[:3]
    return Asked("reason", voice.ask(asked), name, f"The {item.name} {does}.", wrong=rest or other_names(item, voice))


def _of(things: set[str], categories: tuple[str, ...]) -> set[str]:
    return {name for name in things if THINGS[name].category in categories}
