"""From the tokens of an answer to the text that may be shown."""

from __future__ import annotations

from collections.abc import Sequence

from llavakit.engine.stopping import StopStrings
from llavakit.processing.tokenizer import Tokenizer


class AnswerText:
    """Turns tokens into text as they come: whole characters only, nothing of a stop string.

    `prefix` is left out where the answer begins with it: it is the template's, such as the space after "ASSISTANT:",
    and the template writes it again when the answer becomes part of the conversation.
    """

    def __init__(self, tokenizer: Tokenizer, *, prefix: str, stops: Sequence[str]) -> None:
        self._stream = tokenizer.stream()
        self._stops = StopStrings(stops)
        # A SentencePiece decoder takes off the first space by itself.
        self._prefix = prefix.removeprefix(" ") if tokenizer.strips_space else prefix
        self._start: str | None = ""  # text that may yet turn out to be the prefix; None once that is settled

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the answer."""
        return self._stops.stopped

    def put(self, token: int) -> str:
        """Take the next token; returns the text that can no longer change, often none."""
        return self._stops.put(self._without_prefix(self._stream.put(token)))

    def finish(self) -> str:
        """The answer is over: returns the rest of its text."""
        rest = self._stops.put(self._without_prefix(self._stream.finish(), last=True))
        return rest + self._stops.finish()

    def _without_prefix(self, text: str, *, last: bool = False) -> str:
        if self._start is None:
            return text
        self._start += text
        if self._prefix.startswith(self._start) and not last:
            return ""
        text, self._start = self._start.removeprefix(self._prefix), None
        return text
