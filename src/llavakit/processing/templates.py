"""How a conversation is written down for a model: one table of templates, one renderer to typed segments.

A prompt is never a string with markers in it. Each segment carries its own meaning and whether it is learned,
so token ids and training targets come from the same place and cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from llavakit.config import nearest
from llavakit.processing.conversation import Conversation, Message, Picture


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


Segment = TextSegment | PictureSegment | SpecialSegment


@dataclass(frozen=True)
class Template:
    """One way to write a conversation, as data.

    `system` is None where the template has no place for a system prompt. `answer_prefix` is what stands between
    `assistant` and the first word of an answer; it is learned with the answer, so generation starts before it.
    `stop` are strings that end an answer beside the end token.
    """

    system: str | None
    system_suffix: str = ""
    user: str = ""
    user_text: bool = True
    picture_suffix: str = ""
    assistant: str = ""
    answer_prefix: str = ""
    answer_suffix: str = ""
    answer_eos: bool = True
    max_messages: int | None = None
    stop: tuple[str, ...] = ()


TEMPLATES: dict[str, Template] = {
    # Upstream conv_vicuna_v1: what LLaVA-1.5 and 1.6 (Vicuna) were trained and scored with.
    "vicuna_v1": Template(
        system="A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        system_suffix=" ",
        user="USER: ",
        picture_suffix="\n",
        assistant=" ASSISTANT:",
        answer_prefix=" ",
    ),
    # Upstream conv_llava_plain as preprocess_plain uses it in stage 1: the picture, then its caption.
    # What the user says is left out, and a newline ends the caption in place of the end token.
    "plain": Template(system=None, user_text=False, answer_suffix="\n", answer_eos=False, max_messages=2, stop=("\n",)),
}


def find_template(name: str) -> Template:
    """The template of that name; raises ValueError that names the nearest known one."""
    if name not in TEMPLATES:
        raise ValueError(f"There is no template {name!r}: {nearest(name, list(TEMPLATES))}.")
    return TEMPLATES[name]


def render(conversation: Conversation, template: Template | str, *, bos: bool = True) -> list[Segment]:
    """Write a conversation as segments.

    Ends with the generation prefix if the user spoke last; otherwise the conversation is complete, as for training.
    Targets are exactly the assistant's words (with the space before them, where the template has one) and the end
    token. Neighbouring words of one kind become one segment: text is cut only where a special token, a picture or
    an answer begins, and there every tokenizer of the family cuts too.
    Raises ValueError for an unknown template or a conversation that the template cannot hold.
    """
    if isinstance(template, str):
        template = find_template(template)
    _check(conversation, template)
    segments: list[Segment] = [SpecialSegment("bos")] if bos else []
    system = template.system if conversation.system is None else conversation.system
    if system:
        segments.append(TextSegment(system + template.system_suffix))
    num_pictures = 0
    for message in conversation.messages:
        if message.role == "user":
            segments += _user_turn(message, template, num_pictures)
            num_pictures += sum(isinstance(part, Picture) for part in message.parts)
        else:
            segments += _answer(message, template)
    return list(_joined(segments))


def _check(conversation: Conversation, template: Template) -> None:
    if conversation.system and template.system is None:
        raise ValueError("This template has no place for a system prompt; leave it out or choose another template.")
    if template.max_messages is not None and len(conversation.messages) > template.max_messages:
        raise ValueError(
            f"This template holds {template.max_messages} messages and the conversation has "
            f"{len(conversation.messages)}; choose another template, such as 'vicuna_v1'."
        )
    if not template.user_text and not conversation.pictures:
        raise ValueError("This template leaves out what the user says and shows the picture only; there is none.")


def _user_turn(message: Message, template: Template, first_picture: int) -> Iterator[Segment]:
    yield TextSegment(template.user)
    for part in message.parts:
        if isinstance(part, Picture):
            yield PictureSegment(first_picture)
            yield TextSegment(template.picture_suffix)
            first_picture += 1
        elif template.user_text:
            yield TextSegment(part.text)
    yield TextSegment(template.assistant)


def _answer(message: Message, template: Template) -> Iterator[Segment]:
    words = "".join(part.text for part in message.parts)
    if words:
        words = template.answer_prefix + words
    yield TextSegment(words + template.answer_suffix, target=True)
    if template.answer_eos:
        yield SpecialSegment("eos", target=True)


def _joined(segments: list[Segment]) -> Iterator[Segment]:
    """Neighbouring text of one kind as one segment, and no empty ones."""

    def kind(segment: Segment) -> object:
        return segment.target if isinstance(segment, TextSegment) else segment

    for _, group in groupby((s for s in segments if not isinstance(s, TextSegment) or s.text), key=kind):
        run = list(group)
        if isinstance(run[0], TextSegment):
            yield TextSegment("".join(segment.text for segment in run), run[0].target)
        else:
            yield from run
