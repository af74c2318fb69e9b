"""What a text speaks of: the things, colours, sizes, numbers, places and sides that it names.

Words in capitals are quotations of what is written in a picture, and name nothing themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from llavakit.data.scenes.captions import plural, singular
from llavakit.data.scenes.things import THINGS
from llavakit.data.scenes.vocabulary import COUNTS, INKS, SHAPES, SIZES


@dataclass(frozen=True)
class Mention:
    """A thing that a text names, in the singular, and the colours and sizes directly before it."""

    name: str
    looks: frozenset[str] = frozenset()


def _forms(name: str) -> tuple[str, ...]:
    """`bread` is also found as `loaf of bread` and `loaves of bread`."""
    return name, singular(name).split(" ", 1)[1], plural(name)


def _any(words: Iterable[str]) -> str:
    """A pattern for one of the words, the longest that fits."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_NAMES = {form: name for name in (*SHAPES, *THINGS) for form in _forms(name)}
_COLOR = rf"(?:(?:light|dark) )?(?:{_any((*INKS, 'grey'))})"
_MENTION = re.compile(rf"((?:\b(?:{_COLOR}|{_any(SIZES)}) )*)\b({_any(_NAMES)})\b")
_COLORS = re.compile(rf"\b{_COLOR}\b")
_SIZES = re.compile(rf"\b(?:{_any(SIZES)})\b")
_PLACES = re.compile(r"\b(?:top|bottom)(?:[ -](?:left|right))?\b|\b(?:left|right|center|centre|middle)\b")
_SIDES = re.compile(r"\b(?:left|right|above|below)\b")
_NUMBERS = {word: number for number, word in enumerate(COUNTS)} | {"zero": 0, "none": 0}
_NUMBER = re.compile(rf"\b(?:\d+|{_any(_NUMBERS)})\b")
_WRITTEN = re.compile(r"\b[A-Z](?:-[A-Z])+\b|\b[A-Z]{2,}\b|\b\d+\b")
_CAPITALS = re.compile(r"\b[A-Z](?:-[A-Z])+\b|\b[A-Z]{2,}\b")
_DENIAL = re.compile(r"\b(?:no|not|none|nothing|never|neither|nor|without|cannot|fewer|less)\b|n['’]t\b")


def plain(text: str) -> str:
    """The text in small letters, on one line, without what it quotes in capitals."""
    return " ".join(_CAPITALS.sub("", text).lower().split())


def mentions(text: str) -> list[Mention]:
    """Every shape and thing that is named, in order; of overlapping names the longer counts (`palm tree`)."""
    found = _MENTION.finditer(plain(text))
    return [Mention(_NAMES[match[2]], frozenset(chain(colors(match[1]), sizes(match[1])))) for match in found]


def colors(text: str) -> list[str]:
    """Every colour that is named, in order; `light blue` is one, and another than `blue`."""
    return [match.replace("grey", "gray") for match in _COLORS.findall(plain(text))]


def sizes(text: str) -> list[str]:
    """Every size that is named, in order."""
    return _SIZES.findall(plain(text))


def places(text: str) -> set[str]:
    """Every one of the nine places that is named; `top left` is one."""
    found = (match.replace("-", " ") for match in _PLACES.findall(plain(text)))
    return {"center" if place in ("centre", "middle") else place for place in found}


def sides(text: str) -> list[str]:
    """Every one of left, right, above, below, in order."""
    return _SIDES.findall(plain(text))


def before_side(text: str) -> str:
    """The part of a text before the first side that it names: what is said to stand there."""
    text = plain(text)
    match = _SIDES.search(text)
    return text[: match.start()] if match else text


def numbers(text: str) -> list[int]:
    """Every number, in figures or in a word up to ten, in order; `no`, `none` and `zero` are 0."""
    found = _NUMBER.findall(text.lower())
    return [int(number) if number.isdecimal() else _NUMBERS[number] for number in found]


def written(text: str) -> list[str]:
    """What a text quotes from a picture, in order: words in capitals, words spelled as `C-A-T`, and figures."""
    return _WRITTEN.findall(text)


def denies(text: str) -> bool:
    """Whether a text says that something is not so, or that it is less."""
    return _DENIAL.search(plain(text)) is not None
