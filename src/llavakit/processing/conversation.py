"""What is said, before any template: messages of words and pictures, in turn between user and assistant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image


@dataclass(frozen=True)
class Text:
    """Words, taken as they are: nothing spelt in them has a meaning to the program."""

    text: str


@dataclass(frozen=True)
class Picture:
    """A picture at its place among the words."""

    image: Image.Image


Part = Text | Picture


@dataclass(frozen=True)
class Message:
    """One turn of one speaker; raises ValueError where the assistant would speak in pictures."""

    role: Literal["user", "assistant"]
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.role not in ("user", "assistant"):
            raise ValueError(f"A message is from 'user' or 'assistant', not from {self.role!r}.")
        if self.role == "assistant" and any(isinstance(part, Picture) for part in self.parts):
            raise ValueError("The assistant answers in words; a picture belongs in a message of the user.")


def user(*parts: str | Image.Image | Part) -> Message:
    """A message of the user from strings and Pillow images in any order."""
    return Message("user", tuple(_part(part) for part in parts))


def assistant(text: str) -> Message:
    """A message of the assistant."""
    return Message("assistant", (Text(text),))


def _part(part: str | Image.Image | Part) -> Part:
    match part:
        case Text() | Picture():
            return part
        case str():
            return Text(part)
        case Image.Image():
            return Picture(part)
    raise ValueError(f"A message is made of text and Pillow images, not of {type(part).__name__}; see open_image.")


@dataclass(frozen=True)
class Conversation:
    """A whole conversation; immutable, so that earlier states stay valid while it grows.

    `system` replaces the system prompt of the template; None leaves the template's own, "" leaves none.
    Raises ValueError unless user and assistant take turns and the user begins.
    """

    messages: tuple[Message, ...] = ()
    system: str | None = None

    def __post_init__(self) -> None:
        for index, message in enumerate(self.messages):
            expected = "assistant" if index % 2 else "user"
            if message.role != expected:
                raise ValueError(
                    f"Message {index + 1} is from the {message.role}, but it is the {expected}'s turn: "
                    "user and assistant alternate and the user begins."
                )

    def ask(self, *parts: str | Image.Image | Part) -> Conversation:
        """The conversation with one more message of the user."""
        return replace(self, messages=(*self.messages, user(*parts)))

    def answer(self, text: str) -> Conversation:
        """The conversation with one more message of the assistant."""
        return replace(self, messages=(*self.messages, assistant(text)))

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """Every picture, in the order in which they appear."""
        parts = (part for message in self.messages for part in message.parts)
        return tuple(part.image for part in parts if isinstance(part, Picture))
