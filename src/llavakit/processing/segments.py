"""What a prompt is made of: typed segments, never a string with markers in it.

Each segment carries its own meaning and whether it is learned, so token ids and training targets come from the same
place and cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal


@dataclass(frozen=True)
class TextSegment:
    """Words to tokenize; `target` where the model learns to say them."""

    text: str
    target: bool = False


@dataclass(frozen=True)
class PictureSegment:
    """The place of the conversation's picture number `index`; never a target."""

    index: int


@dataclass(frozen=True)
class SpecialSegment:
    """A token that no text can spell."""

    name: Literal["bos", "eos"]
    target: bool = False


@dataclass(frozen=True)
class MarkerSegment:
    """A token of the tokenizer by its spelling, such as <|im_start|>; plain text where the tokenizer has none."""

    spelling: str
    target: bool = False


Segment = TextSegment | PictureSegment | SpecialSegment | MarkerSegment


@dataclass(frozen=True)
class AnswerForm:
    """What stands around an answer: the template's, so no part of the words.

    An answer begins with `prefix`. Beside the end token, one of the ids `ends` or the strings `stop` ends it; `suffix`
    stands before the end token.
    """

    prefix: str = ""
    suffix: str = ""
    ends: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()


def joined(segments: list[Segment]) -> Iterator[Segment]:
    """Neighbouring text of one kind as one segment, and no empty ones."""

    def kind(segment: Segment) -> object:
        return segment.target if isinstance(segment, TextSegment) else segment

    for _, group in groupby((s for s in segments if not isinstance(s, TextSegment) or s.text), key=kind):
        run = list(group)
        if isinstance(run[0], TextSegment):
            yield TextSegment("".join(segment.text for segment in run), run[0].target)
        else:
            yield from run
