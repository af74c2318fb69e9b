"""The LLaVA JSON schema: a list of samples, each a conversation and, mostly, a picture beside it."""

from __future__ import annotations

import json
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
    """One sample. `turns` are (speaker, words) with the picture marker taken out; `picture_turn` says where it stood."""

    id: str
    image: Path | None
    turns: tuple[tuple[str, str], ...]
    picture_turn: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def conversation(self, *, system: str | None = None) -> Conversation:
        """The words alone as a conversation; the data set puts the picture in front of its turn."""
        messages = tuple(Message(SPEAKERS[speaker], (Text(words),)) for speaker, words in self.turns)
        return Conversation(messages, system=system)


def read_records(paths: Sequence[str | Path]) -> list[Record]:
    """All samples of JSON or JSONL files in LLaVA's schema; pictures are found relative to their file's folder.

    Raises `DataError` naming the sample for a missing picture, an unknown speaker or speakers out of turn.
    """
    return [record for path in paths for record in _read_file(Path(path))]


def _read_file(path: Path) -> list[Record]:
    if not path.is_file():
        raise DataError(f"{path} is no file; give a .json or .jsonl file in LLaVA's schema")
    try:
        if path.suffix == ".jsonl":
            samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        else:
            samples = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(samples, list) or not samples:
        raise DataError(f"{path} should hold a list of samples, and at least one")
    images = set(path.parent.rglob("*")) if len(samples) > 1000 else None
    return [_record(sample, position, path, images) for position, sample in enumerate(samples)]


def _record(sample: Any, position: int, path: Path, images: set[Path] | None) -> Record:
    if not isinstance(sample, dict):
        raise DataError(f"sample {position} of {path} is no object with 'conversations'")
    name = str(sample.get("id", position))
    where = f"sample {name!r} of {path}"
    image = _image_path(sample.get("image"), path, where, images)
    turns, picture_turn = _turns(sample.get("conversations"), where, has_image=image is not None)
    extra = {key: value for key, value in sample.items() if key not in ("id", "image", "conversations")}
    return Record(name, image, turns, picture_turn, extra)


def _image_path(image: Any, path: Path, where: str, images: set[Path] | None) -> Path | None:
    if image is None:
        return None
    if not isinstance(image, str):
        raise DataError(f"{where}: 'image' should be one path, not {image!r}")
    found = path.parent / image
    if not (found in images if images is not None else found.is_file()):
        raise DataError(f"{where}: its picture {found} is missing; restore it or take the sample out")
    return found


def _turns(conversations: Any, where: str, *, has_image: bool) -> tuple[tuple[tuple[str, str], ...], int]:
    if not isinstance(conversations, list) or len(conversations) < 2:
        raise DataError(f"{where}: 'conversations' should be a list of turns, a human's and then gpt's")
    turns, picture_turns = [], []
    for position, turn in enumerate(conversations):
        speaker = turn.get("from") if isinstance(turn, dict) else None
        expected = "human" if position % 2 == 0 else "gpt"
        if speaker != expected or not isinstance(turn.get("value"), str):
            raise DataError(f"{where}: turn {position} should be {{'from': {expected!r}, 'value': text}}, not {turn!r}")
        words = turn["value"]
        if has_image and speaker == "human" and MARKER in words:
            picture_turns += [position] * words.count(MARKER)
            words = words.replace(MARKER, "").strip()
        turns.append((speaker, words))
    if len(turns) % 2:
        raise DataError(f"{where}: the last turn is the human's, so there is no answer to learn")
    if has_image and len(picture_turns) > 1:
        raise DataError(f"{where}: {len(picture_turns)} {MARKER} markers for one picture")
    return tuple(turns), picture_turns[0] if picture_turns else 0
