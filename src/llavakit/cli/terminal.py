"""Lines in, and Ctrl-C: what a conversation needs of a terminal, or of a pipe in its place."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

with suppress(ImportError):
    import readline  # noqa: F401  (its presence gives input() editing and history; Windows has none)


def read_line(prompt: str) -> str:
    """The next line; from a pipe it is also printed, so that the transcript reads like a conversation.

    Raises EOFError when there is no more.
    """
    if sys.stdin.isatty():
        return input(prompt)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    print(prompt + line.rstrip("\n"), flush=True)
    return line.rstrip("\n")


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Within it, the first Ctrl-C only makes the yielded function true; a second one is a KeyboardInterrupt."""
    is_stopped = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal is_stopped
        if is_stopped:
            raise KeyboardInterrupt
        is_stopped = True

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: is_stopped
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """A Ctrl-C within it ends in KeyboardInterrupt, whatever the code between has made of the exception."""
    came = False

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if came:
            raise KeyboardInterrupt
