"""From the tokens of an answer to the text that may be shown."""

from __future__ import annotations

from collections.abc import Sequence

from llavakit.engine.stopping import StopStrings, num_begun
from llavakit.processing.segments import AnswerForm
from llavakit.processing.tokenizer import Tokenizer


class AnswerText:
    """Turns tokens into text as they come: whole characters only, nothing of a stop string.

    The form's prefix is left out where the answer begins with it, and its suffix where the end token follows: they are
    the template's, such as the space after "ASSISTANT:", which writes them again when the answer becomes part of the
    conversation.
    """

    def __init__(self, tokenizer: Tokenizer, form: AnswerForm, stops: Sequence[str]) -> None:
        self._stream = tokenizer.stream()
        self._stops = StopStrings((*stops, *form.stop))
        # A SentencePiece decoder takes off the first space by itself.
        self._prefix = form.prefix.removeprefix(" ") if tokenizer.strips_space else form.prefix
        self._start: str | None = ""  # text that may yet turn out to be the prefix; None once that is settled
        self._suffix = form.suffix
        self._end = ""  # text that may yet turn out to be the suffix

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the answer."""
        return self._stops.stopped

    def put(self, token: int) -> str:
        """Take the next token; returns the text that can no longer change, often none."""
        text = self._end + self._stops.put(self._without_prefix(self._stream.put(token)))
        cut = len(text) if self.stopped else len(text) - num_begun(text, [self._suffix])
        self._end = text[cut:]
        return text[:cut]

    def finish(self, *, is_ended: bool) -> str:
        """No more tokens will come, because of an end token or not: returns the rest of the text."""
        rest = self._stops.put(self._without_prefix(self._stream.finish(), last=True))
        text = self._end + rest + self._stops.finish()
        return text.removesuffix(self._suffix) if is_ended else text

    def _without_prefix(self, text: str, *, last: bool = False) -> str:
        if self._start is None:
            return text
        self._start += text
        if self._prefix.startswith(self._start) and not last:
            return ""
        text, self._start = self._start.removeprefix(self._prefix), None
        return text
