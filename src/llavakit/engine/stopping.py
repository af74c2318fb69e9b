"""Stop strings: an answer ends in front of them, and no half of one is ever shown."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on as it arrives, up to the stop string that is complete first.

    Text that may still become a stop string is held back. Of two stop strings completed by the same character the
    longer one counts. The outcome does not depend on how the text was cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop string would stop everything"
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def put(self, text: str) -> str:
        """Take more text; returns what may be shown now. After a stop all further text is swallowed."""
        if self.stopped:
            return ""
        text = self._held + text
        cut = first_stop(text, self._stops)
        self.stopped = cut is not None
        if cut is None:
            cut = len(text) - num_begun(text, self._stops)
            self._held = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """No more text will come: returns what was held back without becoming a stop string."""
        return "" if self.stopped else self._held


def num_begun(text: str, strings: Sequence[str]) -> int:
    """Length of the longest end of `text` with which one of the strings begins."""
    longest = min(len(text), max(map(len, strings), default=0))
    return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in strings)), 0)


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where to cut `text`: the start of the stop string that is complete first; None if there is none."""
    starts = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return min(starts)[1] if starts else None
