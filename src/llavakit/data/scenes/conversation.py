"""A conversation over one picture: a few rounds, and the form in which each answer is asked for."""

import random
import re
from dataclasses import dataclass

from .questions import FAMILIES, Asked, Voice
from .questions.asked import capital
from .scene import Scene
from .split import Split
from .talk import HELLO_PICTURE, THANKS, WHO, Turn, say
from .things import THINGS
from .vocabulary import COLORS, PLACES, SHAPES

ONE_WORD = "Answer the question using a single word or phrase."
BY_LETTER = "Answer with the option's letter from the given choices directly."
# Rounds a picture. Training asks more of each: the system prompt and the picture are read once for all of them.
_NUM_ROUNDS: dict[Split, tuple[int, ...]] = {"train": (9, 10, 11, 12), "heldout": (3, 4, 5, 6)}
_TOLD_LAST = 0.8  # how often descriptions come last, where they give no answer away
_TOLD = ("caption", "detail")
_FIND_OPTION = 0.5  # of the training conversations have a question about the letters of options alone
_WHICH_LETTER = ("Which option is {}?", "Which letter stands before {}?", "Where does it say {}?", "Find {}.")
_OPTIONS = (*THINGS, *SHAPES, *COLORS, *(place for row in PLACES for place in row), *map(str, range(10)))
_BRITISH = (("color", "colour"), ("gray", "grey"), ("in the center", "in the middle"))


@dataclass(frozen=True)
class Round:
    """What one says, what the other says, and what the answer comes down to."""

    kind: str
    human: str
    gpt: str
    answer: str | list[str]
    unseen: bool = False  # whether the wording is one that training never shows


def converse(scene: Scene, rng: random.Random, split: Split) -> list[Round]:
    """Several rounds about a scene, no question twice, one description at most; now and then a greeting or thanks."""
    voice = Voice(rng, split)
    rounds: list[Round] = []
    asked_before: set[str] = set()
    if rng.random() < 0.06:
        rounds.append(_talk(HELLO_PICTURE, rng, split))
    wanted = min(rng.choices(_NUM_ROUNDS[split], (25, 35, 25, 15))[0], 3 + 2 * len(scene.items))
    for _ in range(80):
        asked = _ask(scene, voice)
        if asked is None:
            continue
        matter = "all" if asked.kind in _TOLD else asked.question if asked.kind == "existence" else asked.sentence
        if matter in asked_before:
            continue
        asked_before.add(matter)
        voice.spent(asked.kind)
        rounds.append(_in_form(asked, rng, voice.unseen))
        if len(asked_before) == wanted:
            break
    if split == "train" and rng.random() < _FIND_OPTION:
        rounds.insert(rng.randrange(len(rounds) + 1), _find_option(rng))
    if split == "train" and rng.random() < _TOLD_LAST:
        rounds.sort(key=lambda told: told.kind in _TOLD)
    if rng.random() < 0.10:
        rounds.append(_talk(rng.choice((THANKS, THANKS, WHO)), rng, split))
    return rounds


def _ask(scene: Scene, voice: Voice) -> Asked | None:
    families = list(FAMILIES)
    voice.unseen = False
    return voice.rng.choices(families, list(FAMILIES.values()))[0](scene, voice)


def _talk(turn: Turn, rng: random.Random, split: Split) -> Round:
    human, gpt = say(turn, rng, split)
    return Round("talk", human, gpt, "")


def _in_form(asked: Asked, rng: random.Random, unseen: bool) -> Round:
    """A sentence, unless a format prompt asks for a word or for a letter."""
    question = asked.question if asked.kind == "caption" else _as_typed(asked.question, rng)
    chance = rng.random()
    if asked.brief and isinstance(asked.short, str):
        if chance < 0.44:
            return Round(asked.kind, f"{question}\n{ONE_WORD}", capital(asked.short), asked.short, unseen)
        if chance < (0.62 if len(asked.wrong) > 1 else 0.47) and asked.wrong and asked.short not in asked.wrong:
            return _with_options(asked, question, rng, unseen)
    return Round(asked.kind, question, asked.sentence, asked.short, unseen)


def _with_options(asked: Asked, question: str, rng: random.Random, unseen: bool) -> Round:
    options = [str(asked.short), *asked.wrong[: rng.choice((1, 2, 3, 3, 3))]]
    rng.shuffle(options)
    letter = "ABCD"[options.index(str(asked.short))]
    listed = "\n".join(f"{'ABCD'[k]}. {option}" for k, option in enumerate(options))
    return Round("choice", f"{question}\n{listed}\n{BY_LETTER}", letter, letter, unseen)


def _find_option(rng: random.Random) -> Round:
    """What a choice comes down to once the answer is known: which letter stands before it. No picture is needed."""
    options = rng.sample(_OPTIONS, rng.choice((2, 3, 4, 4)))
    k = rng.randrange(len(options))
    listed = "\n".join(f"{'ABCD'[k]}. {option}" for k, option in enumerate(options))
    question = rng.choice(_WHICH_LETTER).format(options[k])
    return Round("choice", f"{question}\n{listed}\n{BY_LETTER}", "ABCD"[k], "ABCD"[k])


def _as_typed(question: str, rng: random.Random) -> str:
    """Spelled as in one country or another, and typed with more or less care. What is in quotes stays."""
    if rng.random() < 0.4:
        for american, british in _BRITISH:
            question = re.sub(rf"\b{american}\b", british, question)
    if rng.random() < 0.25:
        question = question[0].lower() + question[1:]
        if rng.random() < 0.6:
            question = question.rstrip("?.")
    return question
