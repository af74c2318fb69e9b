"""What a person sees of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich import progress as bars
from rich.console import Console
from rich.table import Column

SHOWN = ("loss", "match", "found", "patch", "named")
SECONDS_A_LINE = 10


def say(text: str, console: Console | None = None) -> None:
    """One line for the person at the run; it goes to standard error, whole, however narrow the window is."""
    (console or Console(stderr=True)).print(text, markup=False, highlight=False, soft_wrap=True)


class Progress:
    """Shows step, loss, tokens per second and time left, from step `start` of `steps` on."""

    def __init__(self, name: str, start: int, steps: int) -> None:
        self.console = Console(stderr=True)
        self.start, self.steps, self.began, self.last_line = start, steps, time.monotonic(), 0.0
        one_line = Column(no_wrap=True, overflow="ellipsis")
        self.bar = bars.Progress(
            bars.TextColumn(name, markup=False, table_column=one_line),
            bars.BarColumn(20),
            bars.MofNCompleteColumn(table_column=Column(no_wrap=True)),
            bars.TextColumn("{task.fields[text]}", markup=False, table_column=one_line),
            bars.TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=steps, completed=start, text="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """A line of its own, above the bar where there is one."""
        say(text, self.console)

    def show(self, row: dict[str, float]) -> None:
        """The state after a step; where nobody watches a bar, one line every few seconds."""
        shown = [f"{key} {row[key]:.3f}" for key in SHOWN if key in row]
        text = "  ".join([*shown, f"{row['tokens_per_s']:.0f} tok/s"])
        self.bar.update(self.task, completed=row["step"], text=text)
        now = time.monotonic()
        if not self.console.is_terminal and (now - self.last_line > SECONDS_A_LINE or row["step"] == self.steps):
            self.last_line = now
            left = (now - self.began) / (row["step"] - self.start) * (self.steps - row["step"])
            self.say(f"step {row['step']}/{self.steps}  {text}  {timedelta(seconds=round(left))} left")
