"""What is said, kept from a program that writes the prompt: an unguessable word stands for each thing said.

Whatever else the program spells is its own, and there special tokens and pictures are meant. A word becomes what it
stands for and nothing else, so no text can become a special token or a picture.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from itertools import count
from typing import Any

from llavakit.processing.conversation import Conversation, Part, Picture, Text
from llavakit.processing.segments import (
    MarkerSegment,
    PictureSegment,
    Segment,
    SpecialSegment,
    TextSegment,
    joined,
)
from llavakit.processing.tokenizer import Tokenizer


class StandIns:
    """The words of one conversation, and what each stands for."""

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(16)
        self._meant: list[Segment] = []

    def word(self, meant: Segment) -> str:
        """A word of letters and digits that no program can have been written to look for."""
        self._meant.append(meant)
        return f"w{self._nonce}n{len(self._meant) - 1}w"

    def text(self, said: str) -> str:
        """A word for a text. White space around it stays, since a program may take that off."""
        core = said.strip()
        return said.replace(core, self.word(TextSegment(core)), 1) if core else said

    def messages(self, conversation: Conversation, *, in_parts: bool) -> list[dict[str, Any]]:
        """The conversation as chat templates are given it: messages of typed parts, or of text alone.

        In text a word and a newline stand for a picture; a part only says that there is one.
        """
        numbers = count()

        def content(parts: Iterable[Part]) -> str | list[dict[str, str]]:
            if in_parts:
                return [
                    {"type": "image"} if isinstance(part, Picture) else {"type": "text", "text": self.text(part.text)}
                    for part in parts
                ]
            return "".join(
                self.word(PictureSegment(next(numbers))) + "\n" if isinstance(part, Picture) else self.text(part.text)
                for part in parts
            )

        said = [(message.role, message.parts) for message in conversation.messages]
        system = [("system", (Text(conversation.system),))] if conversation.system else []
        return [{"role": role, "content": content(parts)} for role, parts in (*system, *said)]

    def read(self, written: str, tokenizer: Tokenizer, *, num_pictures: int) -> list[Segment] | None:
        """What a program wrote; None unless all that is stood for is there, and every picture in its order."""
        segments: list[Segment] = []
        pictures: list[int] = []
        pieces = re.split(f"w{self._nonce}n(\\d+)w", written)
        for at, piece in enumerate(pieces):
            new = [self._meant[int(piece)]] if at % 2 else own_segments(piece, tokenizer, first_picture=len(pictures))
            pictures += [segment.index for segment in new if isinstance(segment, PictureSegment)]
            segments += new
        is_whole = {*map(int, pieces[1::2])} == {*range(len(self._meant))} and pictures == [*range(num_pictures)]
        return list(joined(segments)) if is_whole else None


def own_segments(text: str, tokenizer: Tokenizer, *, first_picture: int = 0) -> list[Segment]:
    """What a program spells itself: tokens of the tokenizer as tokens, pictures numbered, the rest as text."""
    image = tokenizer.spelling(tokenizer.tokens.image) or "<image>"
    spellings = sorted({image, *tokenizer.markers}, key=len, reverse=True)
    pattern = "|".join(re.escape(spelling) for spelling in spellings if spelling.strip())
    pictures = count(first_picture)
    segments: list[Segment] = []
    for at, piece in enumerate(re.split(f"({pattern})", text)):
        id = tokenizer.marker(piece) if at % 2 else None
        if at % 2 and piece == image:
            segments.append(PictureSegment(next(pictures)))
        elif id is not None and id in (tokenizer.tokens.bos, tokenizer.tokens.eos):
            segments.append(SpecialSegment("bos" if id == tokenizer.tokens.bos else "eos"))
        elif piece:
            segments.append(MarkerSegment(piece) if at % 2 else TextSegment(piece))
    return segments
