"""A conversation and a template to typed segments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from llavakit.processing.conversation import Conversation, Message, Picture
from llavakit.processing.segments import MarkerSegment, PictureSegment, Segment, SpecialSegment, TextSegment, joined
from llavakit.processing.templates import Template, find_template


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
    opening = _system(system, template) if system else []
    if not template.system_in_turn:
        segments, opening = segments + opening, []
    for question, answer in template.examples:
        segments += _marked(template.user, template) + [TextSegment(question)] + _marked(template.assistant, template)
        segments += [replace(segment, target=False) for segment in _answer(answer, template)]
    num_pictures = 0
    for index, message in enumerate(conversation.messages):
        if message.role == "user":
            segments += _marked(template.between if index else "", template) + _marked(template.user, template)
            segments += [*opening, *_said(message, template, num_pictures), *_marked(template.assistant, template)]
            num_pictures += sum(isinstance(part, Picture) for part in message.parts)
            opening = []
        else:
            segments += _answer("".join(part.text for part in message.parts), template)
            segments += _marked(template.after_answer, template)
    return list(joined(segments))


def _system(system: str, template: Template) -> list[Segment]:
    before, after = _marked(template.system_prefix, template), _marked(template.system_suffix, template)
    return [*before, TextSegment(system), *after]


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


def _said(message: Message, template: Template, first_picture: int) -> Iterator[Segment]:
    for part in message.parts:
        if isinstance(part, Picture):
            yield from _marked(template.picture_prefix, template)
            yield PictureSegment(first_picture)
            yield from _marked(template.picture_suffix, template)
            first_picture += 1
        elif template.user_text:
            yield TextSegment(part.text)


def _answer(words: str, template: Template) -> list[Segment]:
    said = TextSegment(template.answer_prefix + words if words else "", target=True)
    end: list[Segment] = [SpecialSegment("eos", target=True)] if template.answer_eos else []
    return [said, *_marked(template.answer_suffix, template, target=True), *end]


def _marked(text: str, template: Template, *, target: bool = False) -> list[Segment]:
    """What the template itself writes: its tokens as tokens, the rest as text."""
    pattern = "|".join(re.escape(marker) for marker in ("<s>", "</s>", *template.markers))
    segments: list[Segment] = []
    for part in re.split(f"({pattern})", text):
        if part in ("<s>", "</s>"):
            segments.append(SpecialSegment("bos" if part == "<s>" else "eos", target))
        elif part in template.markers:
            segments.append(MarkerSegment(part, target))
        else:
            segments.append(TextSegment(part, target))
    return segments
