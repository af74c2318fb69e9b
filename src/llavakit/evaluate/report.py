"""What came out: scores by kind, form and target, and wrong answers to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from llavakit.checkpoint.atomic import atomic_file
from llavakit.evaluate.forms import FORMS
from llavakit.evaluate.score import Score
from llavakit.evaluate.task import Answer, Question, Task

NUM_WRONG = 5  # wrong answers shown of each kind
Row = dict[str, Any]


def summarize(task: Task, answers: Sequence[Answer]) -> dict[str, Any]:
    """The scores as plain data: a pure function of the answers.

    `targets` beside what was reached, `kinds`, `forms` (also: how often the form was kept), `splits` by tag,
    `faithful` (captions that name nothing which is not there), `overall`, and the first `wrong` answers of each kind.
    """
    kinds = sorted({answer.question.kind for answer in answers})
    tags = sorted({tag for answer in answers for tag in answer.question.tags})
    targets = [
        {"name": target.name, "target": target.percent, **row}
        for target in task.targets
        if (row := _right(answer for answer in answers if target.counts(answer.question)))
    ]
    captions = [answer for answer in answers if isinstance(answer.question.expected, tuple)]
    return {
        "overall": _right(answers),
        "targets": targets,
        "kinds": {kind: _right(a for a in answers if a.question.kind == kind) for kind in kinds},
        "forms": {form: row for form in FORMS if (row := _form(a for a in answers if a.question.form == form))},
        "splits": {tag: _right(a for a in answers if tag in a.question.tags) for tag in tags},
        "faithful": _row(captions, lambda answer: not answer.grade.invented),
        "wrong": {kind: rows for kind in kinds if (rows := _wrong(answers, kind))},
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON, whole or not at all."""
    with atomic_file(path) as unfinished:
        unfinished.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _right(answers: Iterable[Answer]) -> Row:
    return _row(answers, lambda answer: answer.grade.is_right)


def _form(answers: Iterable[Answer]) -> Row:
    answers = list(answers)
    row = _right(answers)
    return row | {"kept": _row(answers, lambda answer: answer.grade.in_form)} if row else {}


def _row(answers: Iterable[Answer], verdict: Callable[[Answer], bool]) -> Row:
    """A score as plain data; empty if there is nothing to count."""
    score = Score.of(verdict(answer) for answer in answers)
    if not score.n:
        return {}
    return {"n": score.n, "right": score.right, "score": score.percent, "interval": list(score.interval)}


def _wrong(answers: Sequence[Answer], kind: str) -> list[dict[str, Any]]:
    wrong = [answer for answer in answers if answer.question.kind == kind and not answer.grade.is_right]
    return [_to_read(answer.question, answer.given) for answer in wrong[:NUM_WRONG]]


def _to_read(question: Question, given: str) -> dict[str, Any]:
    expected = question.expected if isinstance(question.expected, str) else list(question.expected)
    return {"id": question.id, "question": question.text, "expected": expected, "given": given}
