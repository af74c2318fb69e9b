"""The LLaVA JSON schema: a list of samples, each a conversation and, mostly, a picture beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llavakit.processing.conversation import Conversation, Message, Text

MARKER = "<image>"  # in this schema, and nowhere else, a picture's place is written as text
SPEAKERS = {"human": "user", "gpt": "assistant"}


class DataError(ValueError):
    """A data set that cannot be trained on; the message names the sample and the file."""


@dataclass(frozen=True)
class Record:
    """One sample. `turns` are (speaker, words) with the picture marker taken out; `picture_turn` says where it stood.

    `extra` keeps whatever else the sample holds.
    """

    id: str
    image: Path | None
    turns: tuple[tuple[str, str], ...]
    picture_turn: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def conversation(self, *, system: str | None = None) -> Conversation:
        """The words alone as a conversation; the data set puts the picture in front of its turn."""
        messages = tuple(Message(SPEAKERS[speaker], (Text(words),)) for speaker, words in self.turns)
        return Conversation(messages, system=system)


def read_records(paths: Sequence[str | Path], *, images: str | Path | None = None) -> list[Record]:
    """All samples of JSON or JSONL files in LLaVA's schema.

    The paths of pictures start from the folder `images`, or from that of the file they stand in. A sample with a
    picture but no marker shows it first; a marker in a sample without a picture is text like any other.
    Raises `DataError` naming the sample for a missing picture, an unknown speaker, speakers out of turn, more than
    one marker, or answers without a word.
    """
    return [record for path in paths for record in _read_file(Path(path), images)]


def _read_file(path: Path, images: str | Path | None) -> list[Record]:
    if not path.is_file():
        raise DataError(f"{path} is no file; give a .json or .jsonl file in LLaVA's schema")
    pictures = _Pictures(path.parent if images is None else Path(images))
    return [_record(sample, position, path, pictures) for position, sample in enumerate(_samples(path))]


def _samples(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from None
    # Not `splitlines`, which also cuts at characters that may stand inside a JSON string.
    pieces = text.split("\n") if path.suffix == ".jsonl" else [text]
    values = []
    for number, piece in enumerate(pieces, start=1):
        if path.suffix == ".jsonl" and not piece.strip():
            continue
        try:
            values.append(json.loads(piece))
        except json.JSONDecodeError as error:
            where = f"line {number} of {path}" if path.suffix == ".jsonl" else str(path)
            raise DataError(f"{where} is not valid JSON: {error}") from None
    samples = values if path.suffix == ".jsonl" else values[0]
    if not isinstance(samples, list) or not samples:
        raise DataError(f"{path} should hold a list of samples, and at least one")
    return samples


class _Pictures:
    """The picture files below a folder; each folder is listed once, since asking for every file takes minutes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[Path, frozenset[str]] = {}

    def find(self, image: Any, where: str) -> Path | None:
        if image is None:
            return None
        if not isinstance(image, str) or not image:
            raise DataError(f"{where}: 'image' should be the path of one picture, not {image!r}")
        found = self.root / image
        if found.parent not in self.names:
            self.names[found.parent] = frozenset(os.listdir(found.parent)) if found.parent.is_dir() else frozenset()
        if found.name not in self.names[found.parent]:
            raise DataError(f"{where}: its picture {found} is missing; restore it or take the sample out")
        return found


def _record(sample: Any, position: int, path: Path, pictures: _Pictures) -> Record:
    if not isinstance(sample, dict):
        raise DataError(f"sample {position} of {path} is no object with 'conversations'")
    name = str(sample.get("id", position))
    where = f"sample {name!r} of {path}"
    image = pictures.find(sample.get("image"), where)
    turns, picture_turn = _turns(sample.get("conversations"), where, has_image=image is not None)
    extra = {key: value for key, value in sample.items() if key not in ("id", "image", "conversations")}
    return Record(name, image, turns, picture_turn, extra)


def _turns(conversations: Any, where: str, *, has_image: bool) -> tuple[tuple[tuple[str, str], ...], int]:
    if not isinstance(conversations, list) or len(conversations) < 2:
        raise DataError(f"{where}: 'conversations' should be a list of turns, a human's and then gpt's")
    turns, picture_turns = [], []
    for position, turn in enumerate(conversations):
        speaker = turn.get("from") if isinstance(turn, dict) else None
        expected = "gpt" if position % 2 else "human"
        if speaker != expected or not isinstance(turn.get("value"), str):
            raise DataError(f"{where}: turn {position} should be {{'from': {expected!r}, 'value': text}}, not {turn!r}")
        words = turn["value"]
        if has_image and speaker == "human" and MARKER in words:
            picture_turns += [position] * words.count(MARKER)
            words = words.replace(MARKER, "").strip()
        turns.append((speaker, words))
    if len(turns) % 2:
        raise DataError(f"{where}: the last turn is the human's, so there is no answer to learn")
    if len(picture_turns) > 1:
        raise DataError(f"{where}: {len(picture_turns)} {MARKER} markers for one picture")
    if not any(words.strip() for _, words in turns[1::2]):
        raise DataError(f"{where}: its answers are empty, so there is no word to learn; take the sample out")
    return tuple(turns), picture_turns[0] if picture_turns else 0
