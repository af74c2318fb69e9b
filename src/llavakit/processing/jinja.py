"""A checkpoint's own chat template, a program in Jinja, to typed segments; used only where it is asked for."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavakit.processing.conversation import Conversation
from llavakit.processing.segments import AnswerForm, MarkerSegment, Segment, SpecialSegment, TextSegment
from llavakit.processing.stand_ins import StandIns, own_segments
from llavakit.processing.tokenizer import Tokenizer

_SANDBOX = Path(__file__).with_name("sandbox.py")
_OUT_OF_TIME = getattr(signal, "SIGXCPU", signal.SIGTERM)  # not on Windows, which ends no process by a signal
# What an interpreter needs of its surroundings; the rest, secrets among it, is not passed on.
_PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "SYSTEMROOT")


class ChatTemplateError(ValueError):
    """A checkpoint's own chat template that cannot be used; the message says why and what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The checkpoint's own chat template cannot be used ({reason}); choose another template.")


@dataclass(frozen=True)
class JinjaTemplate:
    """The source of a chat template, and how much it may take before it is given up."""

    source: str
    seconds: float = 5.0
    max_bytes: int = 2**29
    max_characters: int = 2**20

    def render(self, conversation: Conversation, tokenizer: Tokenizer) -> tuple[list[Segment], AnswerForm]:
        """The prompt for the next answer, and what will stand around that; raises `ChatTemplateError`.

        As transformers does it, messages are given in parts, for templates of models with pictures. A template that
        takes them for text is given text instead.
        """
        drafts = [_Draft(conversation, in_parts=in_parts) for in_parts in (True, False)]
        names = {f"{name}_token": tokenizer.spelling(getattr(tokenizer.tokens, name)) for name in ("bos", "eos", "pad")}
        results = self._run([names | values for draft in drafts for values in (draft.asked, draft.answered)])
        reasons = []
        for draft, asked, answered in zip(drafts, results[::2], results[1::2], strict=True):
            written = asked.get("text", "")
            segments = draft.said.read(written, tokenizer, num_pictures=len(conversation.pictures))
            if "text" in asked and segments is not None:
                before, _, after = answered.get("text", "").partition(draft.answer)
                prefix = before.removeprefix(written) if before.startswith(written) else ""
                return _begun(segments), _answer_form(prefix, own_segments(after, tokenizer), tokenizer)
            reasons.append(asked.get("error", "it leaves out, changes or moves some of what is said or shown"))
        raise ChatTemplateError("; and given text alone: ".join(dict.fromkeys(reasons)))

    def _run(self, renderings: list[dict[str, Any]]) -> list[dict[str, str]]:
        """A text or an error for each set of values, from a process that is given so much time and memory."""
        task = {
            "source": self.source,
            "renderings": renderings,
            "seconds": math.ceil(self.seconds),
            "bytes": self.max_bytes,
            "characters": self.max_characters,
        }
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-X", "utf8", str(_SANDBOX)],
                input=json.dumps(task),
                capture_output=True,
                encoding="utf-8",
                timeout=self.seconds,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            )
        except subprocess.TimeoutExpired:
            raise self._too_long() from None
        if done.returncode == -_OUT_OF_TIME:
            raise self._too_long()
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
            raise ChatTemplateError(said[-1])
        return json.loads(done.stdout)

    def _too_long(self) -> ChatTemplateError:
        return ChatTemplateError(f"it takes longer than {self.seconds:g} seconds")


class _Draft:
    """What a template is given: a conversation, and the same with the answer to come."""

    def __init__(self, conversation: Conversation, *, in_parts: bool) -> None:
        self.said = StandIns()
        self.answer = StandIns().word(TextSegment(""))
        messages = self.said.messages(conversation, in_parts=in_parts)
        content = [{"type": "text", "text": self.answer}] if in_parts else self.answer
        last = {"role": "assistant", "content": content}
        # What transformers gives beside the messages; tools and documents there are none.
        others: dict[str, Any] = {"tools": None, "documents": None}
        self.asked = {"messages": messages, "add_generation_prompt": True, **others}
        self.answered = {"messages": [*messages, last], "add_generation_prompt": False, **others}


def _begun(segments: list[Segment]) -> list[Segment]:
    """With the begin token, which some templates write and others leave to the tokenizer."""
    bos = SpecialSegment("bos")
    return segments if segments[:1] == [bos] else [bos, *segments]


def _answer_form(prefix: str, after: list[Segment], tokenizer: Tokenizer) -> AnswerForm:
    """From what a template writes before and after an answer, in a conversation that already has it."""
    suffix = ""
    if after and isinstance(after[0], TextSegment) and not after[0].text.strip():
        suffix, after = after[0].text, after[1:]
    ends = [tokenizer.marker(segment.spelling) for segment in after[:1] if isinstance(segment, MarkerSegment)]
    return AnswerForm(prefix, suffix, tuple(id for id in ends if id is not None))
