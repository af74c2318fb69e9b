"""What a test is made of: questions about pictures, and a judge of the answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llavakit.data.records import DataError


@dataclass(frozen=True)
class Question:
    """One question about one picture, asked on its own.

    `expected` is what the answer comes down to, all objects of a caption. `reference` is a right answer in full, in the
    form that was asked for. `tags` are what else the score is split by.
    """

    id: str
    picture: Path
    text: str
    kind: str
    form: str
    expected: str | tuple[str, ...]
    reference: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grade:
    """The verdict on one answer. `invented`: things a caption names that are not there."""

    is_right: bool
    in_form: bool
    invented: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a model said to a question, and the verdict on it."""

    question: Question
    given: str
    grade: Grade


@dataclass(frozen=True)
class Target:
    """A score that is aimed at, in percent, over the questions that `counts` picks."""

    name: str
    percent: float
    counts: Callable[[Question], bool]


@dataclass(frozen=True)
class Questions:
    """The test as read from a file. `unscored`: rounds of the file that no rule could judge."""

    file: Path
    questions: tuple[Question, ...]
    unscored: int = 0


@dataclass(frozen=True)
class Task:
    """A whole test: `read` its questions from a folder or file, `grade` each answer, compare with the targets."""

    name: str
    read: Callable[[Path], Questions]
    grade: Callable[[Question, str], Grade]
    targets: tuple[Target, ...] = ()


def find_file(path: Path, patterns: tuple[str, ...]) -> Path:
    """The file to read: itself, or the one in a folder that fits the earliest pattern which any file fits.

    Raises `DataError` where there is none, or where it is not clear which one is meant.
    """
    if not path.is_dir():
        return path
    for pattern in patterns:
        found = sorted(path.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(file.name for file in found)
            raise DataError(f"{path} holds several data sets ({listed}); name the file that is meant")
    raise DataError(f"{path} holds no {' or '.join(patterns)} file; give a data set, as a file or as its folder")
