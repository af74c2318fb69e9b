"""Laws of stop strings, over random texts cut into random pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llavakit.engine.stopping import StopStrings, first_stop

# Two letters: matches, near misses and overlaps are frequent.
PIECES = st.lists(st.text("ab", max_size=4), max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=3)


def expected_cut(text: str, stops: list[str]) -> int | None:
    """Read character by character: the first end of a stop string counts, and the longest of those that end there."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return min(starts)
    return None


@given(PIECES, STOPS)
def test_shown_text_is_the_full_text_cut_at_the_first_stop(pieces: list[str], stops: list[str]) -> None:
    matcher = StopStrings(stops)
    shown = "".join([matcher.put(piece) for piece in pieces] + [matcher.finish()])
    text = "".join(pieces)
    assert shown == text[: expected_cut(text, stops)]
    assert matcher.stopped == (expected_cut(text, stops) is not None)


@given(PIECES, STOPS)
def test_what_was_shown_stays_right_whichever_stop_comes_next(pieces: list[str], stops: list[str]) -> None:
    matcher, shown, text = StopStrings(stops), "", ""
    for piece in pieces:
        shown, text = shown + matcher.put(piece), text + piece
        for future in [text + stop[n:] for stop in stops for n in range(len(stop))]:
            assert future[: expected_cut(future, stops)].startswith(shown)
        assert not matcher.stopped or not matcher.put("more")


@given(PIECES, STOPS)
def test_nothing_is_held_back_without_need(pieces: list[str], stops: list[str]) -> None:
    matcher, shown, text = StopStrings(stops), "", ""
    for piece in pieces:
        shown, text = shown + matcher.put(piece), text + piece
        held = text[len(shown) :]
        assert matcher.stopped or not held or any(stop.startswith(held) for stop in stops)


@given(st.text("ab", max_size=30), STOPS)
def test_first_stop_is_the_one_complete_first(text: str, stops: list[str]) -> None:
    assert first_stop(text, stops) == expected_cut(text, stops)
