"""Questions about drawn scenes, as `llava scenes --kind instruct --split heldout` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llavakit.config import nearest
from llavakit.data.records import DataError, Record, read_records
from llavakit.evaluate.forms import asked_form
from llavakit.evaluate.scoring import RULES, grade
from llavakit.evaluate.task import Question, Questions, Target, Task, find_file

FILES = ("instruct-heldout.json", "instruct*.json", "*.json")
UNSCORED = "talk"  # greetings and thanks have no one right answer
SEVERAL = ("caption", "detail", "list")  # the kinds of which the expected answer is a list: all that has to be named


def read(path: Path) -> Questions:
    """Every round of a record becomes a question of its own; a record without a picture is talk.

    Raises `DataError` for a file that is not what `llava scenes` writes, naming the sample.
    """
    file = find_file(path, FILES)
    rounds = [question for record in read_records([file]) for question in round_questions(record)]
    questions = tuple(question for question in rounds if question is not None)
    if not questions:
        raise DataError(f"{file} holds no question that can be scored, only talk")
    return Questions(file, questions, unscored=len(rounds) - len(questions))


def round_questions(record: Record) -> list[Question | None]:
    """One for each round, None where there is nothing to judge."""
    num_rounds = len(record.turns) // 2
    kinds, answers, unseen = (_a_list(record, key, num_rounds) for key in ("kinds", "answers", "unseen_wording"))
    return [_question(record, k, kinds[k], answers[k], bool(unseen[k])) for k in range(num_rounds)]


def _question(record: Record, number: int, kind: Any, answer: Any, is_unseen: bool) -> Question | None:
    if kind == UNSCORED:
        return None
    where = f"round {number} of sample {record.id!r}"
    if not isinstance(kind, str) or kind not in RULES:
        raise DataError(
            f"{where} is of the kind {kind!r}, for which there is no rule; {nearest(str(kind), tuple(RULES))}"
        )
    if not isinstance(answer, list if kind in SEVERAL else str):
        raise DataError(f"{where}: the answer to a {kind} question cannot be {answer!r}")
    if record.image is None:
        raise DataError(f"{where} asks about a picture, but the sample has no 'image'")
    (_, text), (_, reference) = record.turns[2 * number : 2 * number + 2]
    held_out = [f"held-out {reason}" for reason in record.extra.get("held_out", ())]
    question = Question(
        id=f"{record.id}/{number}",
        picture=record.image,
        text=text,
        kind=kind,
        form=asked_form(text),
        expected=tuple(answer) if isinstance(answer, list) else answer,
        reference=reference,
        tags=("held-out wording" if is_unseen else "known wording", *held_out),
    )
    if not grade(question, reference).is_right:
        raise DataError(
            f"{where}: its own answer {reference!r} does not come down to {answer!r}, so it cannot be scored"
        )
    return question


def _a_list(record: Record, key: str, length: int) -> list[Any]:
    """One value a round; only what is held out may be left unsaid."""
    values = record.extra.get(key, [False] * length if key == "unseen_wording" else None)
    if not isinstance(values, list) or len(values) != length:
        raise DataError(
            f"sample {record.id!r} has no {key!r} for each of its {length} rounds, so its answers cannot be scored; "
            "`llava scenes --kind instruct --split heldout` writes such data"
        )
    return values


def _is_small_count(question: Question) -> bool:
    return question.kind == "count" and question.expected in tuple("012345")


def _is_short_word(question: Question) -> bool:
    word = question.expected
    return question.kind == "reading" and isinstance(word, str) and word.isalpha() and len(word) <= 5


SCENES = Task(
    name="scenes",
    read=read,
    grade=grade,
    targets=(
        Target("existence", 93, lambda question: question.kind == "existence"),
        Target("names of things and shapes", 88, lambda question: question.kind == "name"),
        Target("colour", 93, lambda question: question.kind == "colour"),
        Target("counts up to five", 80, _is_small_count),
        Target("position and relation", 85, lambda question: question.kind in ("position", "relation")),
        Target("words of up to five letters", 60, _is_short_word),
        Target("captions that name every object", 75, lambda question: question.kind in ("caption", "detail")),
    ),
)
