"""Whether an answer is right: one strict rule for each kind of question, over strings alone.

docs/evaluation.md states the rules in words. All rules are of one shape: (question, given answer) to right or wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from llavakit.evaluate.forms import is_in_form
from llavakit.evaluate.task import Grade, Question
from llavakit.evaluate.words import (
    Mention,
    before_side,
    colors,
    denies,
    mentions,
    numbers,
    places,
    plain,
    sides,
    sizes,
    written,
)

Rule = Callable[[Question, str], bool]

_NOT_THERE = re.compile(
    r"\b(?:there (?:is|are) (?:no|not|none)\b|there (?:is|are)n['’]t\b"
    r"|(?:do not|don['’]t|cannot|can['’]t|can not) (?:see|find|spot)\b"
    r"|(?:is|are)(?: not|n['’]t) (?:there|any|in the (?:picture|image))\b)"
)
_UP, _DOWN = {"larger", "bigger", "largest", "biggest"}, {"smaller", "smallest"}


def grade(question: Question, given: str) -> Grade:
    """The verdict on an answer, in every respect."""
    invented = ()
    if isinstance(question.expected, tuple):
        named = {name for name in _named(given) if not name.isdecimal() or int(name) > 10}  # `2 cats` quotes no 2
        invented = tuple(sorted(named - set(question.expected)))
    return Grade(RULES[question.kind](question, given), is_in_form(given, question.form), invented)


def yes_or_no(question: Question, given: str) -> bool:
    """The first word is the expected one."""
    first = re.match(r"\W*(\w+)", given)
    return first is not None and first[1].lower() == question.expected


def count(question: Question, given: str) -> bool:
    """One number is named, and it is the expected one."""
    return set(numbers(given)) == set(numbers(_text(question)))


def color(question: Question, given: str) -> bool:
    """The expected colour is named and no other."""
    return set(colors(given)) == {_text(question)} and not denies(given)


def name(question: Question, given: str) -> bool:
    """The expected thing is named first, and nothing else but what the question names itself."""
    named, asked = mentions(given), {mention.name for mention in mentions(question.text)}
    wanted = mentions(_text(question))
    return (
        bool(named and wanted)
        and _is_meant(named[0], wanted[0])
        and all(mention.name in asked | {wanted[0].name} for mention in named[1:])
        and not denies(given)
    )


def position(question: Question, given: str) -> bool:
    """The expected place is named and no other."""
    return places(given) == {_text(question)} and not denies(given)


def relation(question: Question, given: str) -> bool:
    """Yes or no; a side, said of the thing that was asked about; or what stands there."""
    if question.expected in ("yes", "no"):
        return yes_or_no(question, given)
    said = set(sides(given))
    if question.expected in ("left", "right", "above", "below"):
        return said == {question.expected} and not denies(given) and _same_subject(given, question.reference)
    return name(question, given) and said <= set(sides(question.text))


def compare(question: Question, given: str) -> bool:
    """Yes or no, or what there is more of."""
    return yes_or_no(question, given) if question.expected in ("yes", "no") else name(question, given)


def size(question: Question, given: str) -> bool:
    """The expected size and no other; or the larger or smaller thing, with no word for the opposite."""
    if question.expected in ("small", "medium", "large"):
        return set(sizes(given)) == {question.expected} and not denies(given)
    said, asked = set(plain(given).strip(".").split()), set(re.findall(r"\w+", question.text.lower()))
    opposite = _DOWN if asked & _UP else _UP
    return name(question, given) and not said & opposite


def reason(question: Question, given: str) -> bool:
    """What the answer comes to in the end: its last number, colour or letter; or the thing its first sentence names."""
    expected = _text(question)
    if expected.isdecimal():
        return numbers(given)[-1:] == [int(expected)]
    if len(expected) == 1:
        return re.findall(r"\w+", given)[-1:] == [expected]
    if colors(expected) == [expected]:
        return colors(given)[-1:] == [expected] and not denies(given)
    return name(question, given.split(". ")[0])


def reading(question: Question, given: str) -> bool:
    """Exactly what is written, letter by letter, all of it and nothing else; in any order."""
    return sorted(written(given)) == sorted(written(_text(question)))


def choice(question: Question, given: str) -> bool:
    """The letter, and nothing but the letter."""
    return given.strip() == question.expected


def caption(question: Question, given: str) -> bool:
    """Every object is named."""
    return set(question.expected) <= _named(given)


def listed(question: Question, given: str) -> bool:
    """Everything of the kind is named, and nothing else."""
    return set(question.expected) == _named(given)


def absent(question: Question, given: str) -> bool:
    """It is said that the thing asked about is not there, and nothing is said of it or of another all the same."""
    return _NOT_THERE.search(plain(given)) is not None and all(
        set(found(given)) <= set(found(question.text)) for found in (mentions, colors, sizes, places)
    )


RULES: dict[str, Rule] = {
    "existence": yes_or_no,
    "name": name,
    "colour": color,
    "count": count,
    "position": position,
    "relation": relation,
    "reading": reading,
    "compare": compare,
    "size": size,
    "reason": reason,
    "choice": choice,
    "caption": caption,
    "detail": caption,
    "list": listed,
    "absent": absent,
}


def _text(question: Question) -> str:
    assert isinstance(question.expected, str)
    return question.expected


def _named(text: str) -> set[str]:
    """Things and shapes, and what is quoted from the picture."""
    return {mention.name for mention in mentions(text)} | set(written(text))


def _is_meant(said: Mention, wanted: Mention) -> bool:
    """`the large red circle` is the red circle, but `the circle` is not."""
    return said.name == wanted.name and wanted.looks <= said.looks


def _same_subject(given: str, reference: str) -> bool:
    """Whether an answer speaks of what it was asked about; one that names nothing does (`It is above the cat.`)."""
    said, meant = _subject(given), _subject(reference)
    return said is None or meant is None or _is_meant(said, meant) or _is_meant(meant, said)


def _subject(text: str) -> Mention | None:
    """What is said to stand on a side."""
    start = before_side(text)
    named = mentions(start) or [Mention(word) for word in re.findall(r"\b(?:word|number)\b", start)]
    return named[0] if named else None
