"""Captions: a scene first becomes a description, a plain list of what to say, and that becomes sentences.

A caption names everything in the picture, from top to bottom and from left to right.
"""

import random
from collections import Counter
from dataclasses import dataclass

from .relations import relation
from .scene import Background, Item, Scene, place
from .things import THINGS
from .vocabulary import COUNTS

LONG_WORDINGS = 4
SHORT_WORDINGS = 3
_PREPOSITIONS = {"left": "on", "right": "on", "top": "at", "bottom": "at"}


@dataclass(frozen=True)
class Group:
    """Equal items, spoken of in one phrase."""

    kind: str
    name: str
    color: str | None
    size: str | None
    number: int = 1
    place: str | None = None  # of a single item, where it is clear


@dataclass(frozen=True)
class Description:
    """All that a caption may say about a picture, in the order in which it is said."""

    groups: tuple[Group, ...]
    background: Background
    relation: tuple[int, str, int] | None = None  # group, "to the left of", group


def describe(scene: Scene, rng: random.Random) -> Description:
    """What there is to say about a scene; `rng` chooses which relation is spoken of."""
    members: dict[tuple[str, str, str | None, str | None], list[Item]] = {}
    for item in scene.items:
        members.setdefault((item.kind, item.name, item.color, item.size), []).append(item)
    groups = tuple(
        Group(*key, number=len(items), place=place(scene, items[0]) if len(items) == 1 else None)
        for key, items in members.items()
    )
    single = [k for k, items in enumerate(members.values()) if len(items) == 1]
    pairs = [(a, b) for a in single for b in single if a != b]
    rng.shuffle(pairs)
    listed = list(members.values())
    told = ((a, relation(scene, listed[a][0], listed[b][0]), b) for a, b in pairs)
    found = next(((a, words, b) for a, words, b in told if words), None)
    return Description(groups, scene.background, found)


def short_caption(description: Description, wording: int) -> str:
    """One sentence with kinds, colours and numbers."""
    said = joined([phrase(group, size=False) for group in description.groups])
    return _sentence(("{}", "a picture of {}", "{} {where}")[wording], said, description)


def long_caption(description: Description, wording: int) -> str:
    """Sentences with sizes, places, a relation and the background."""
    groups = description.groups
    if wording == 0:
        said = [_standing(group) for group in groups]
        told = " ".join(_capital(sentence) + "." for sentence in said)
        return f"{told} {description.background.sentence}"
    said = joined([phrase(group) + _where(group) for group in groups])
    caption = _sentence(
        ("", "{where} there {be} {}", "the picture shows {} {where}", "there {be} {}")[wording],
        said, description,
    )  # fmt: skip
    if description.relation and wording != 1:
        a, words, b = description.relation
        caption += f" {_capital(definite(groups[a], groups))} is {words} {definite(groups[b], groups)}."
    return caption


def phrase(group: Group, size: bool = True) -> str:
    """A group as a noun phrase: `three small red circles`, `a cat`, `the word "HELLO" in blue`."""
    if group.kind in ("word", "number"):
        letters = f'"{group.name}"' if group.kind == "word" else group.name
        return f"the {group.kind} {letters} in {group.color}"
    words = [group.size] if size and group.size else []
    if group.kind == "shape" and group.color:
        words.append(group.color)
    if group.number > 1:
        return " ".join([COUNTS[group.number], *words, plural(group.name)])
    if not words:
        return singular(group.name)
    if group.name in THINGS:
        words.append(singular(group.name).removeprefix("an ").removeprefix("a "))
    else:
        words.append(group.name)
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def definite(group: Group, groups: tuple[Group, ...]) -> str:
    """A group with "the", and as many words as it takes to know which one is meant."""
    if group.kind == "number":
        return f"the number {group.name}"
    if group.kind == "word":
        return f'the word "{group.name}"'
    same = Counter(other.name for other in groups)[group.name] > 1
    if group.kind == "thing":
        alike = sum(other.name == group.name and other.size == group.size for other in groups) > 1
        first = f"{group.color} " if same and alike and group.color else f"{group.size} " if same else ""
        return f"the {first}{group.name}"
    twins = sum((other.name, other.color) == (group.name, group.color) for other in groups) > 1
    return f"the {group.size + ' ' if twins and group.size else ''}{group.color} {group.name}"


def singular(name: str) -> str:
    """A thing or a shape with its article."""
    if name in THINGS:
        return THINGS[name].singular
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plural(name: str) -> str:
    if name in THINGS:
        return THINGS[name].plural
    return name + ("es" if name.endswith("s") else "s")


def at(where: str) -> str:
    """A place with its preposition."""
    return f"{_PREPOSITIONS.get(where, 'in')} the {where}"


def _where(group: Group) -> str:
    return f" {at(group.place)}" if group.place else ""


def _standing(group: Group) -> str:
    """A group as a sentence of its own."""
    if group.kind in ("word", "number"):
        letters = f'"{group.name}"' if group.kind == "word" else group.name
        return f"the {group.kind} {letters} is written in {group.color}{_where(group)}"
    if not group.place:
        return f"there {'is' if group.number == 1 else 'are'} {phrase(group)}"
    return f"{phrase(group)} is {at(group.place)}"


def _sentence(frame: str, said: str, description: Description) -> str:
    plural_first = description.groups[0].number > 1
    told = frame.format(said, where=description.background.where, be="are" if plural_first else "is")
    return _capital(told) + "."


def joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
