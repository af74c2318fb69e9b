"""What a person sees of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich import progress as bars
from rich.console import Console


class Progress:
    """Shows step, loss, tokens per second and time left, and how long a run has been going."""

    def __init__(self, name: str, start: int, steps: int) -> None:
        self.console = Console(stderr=True)
        self.start, self.steps, self.began, self.last_line = start, steps, time.monotonic(), 0.0
        self.bar = bars.Progress(
            bars.TextColumn(name),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[text]}"),
            bars.TimeRemainingColumn(),
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
        self.console.print(text, highlight=False)

    def show(self, row: dict[str, float]) -> None:
        shown = {key: row[key] for key in ("loss", "match", "caption", "found") if key in row}
        text = "  ".join(f"{key} {value:.3f}" for key, value in shown.items()) + f"  {row['tokens_per_s']:.0f} tok/s"
        self.bar.update(self.task, completed=row["step"], text=text)
        now = time.monotonic()
        if not self.console.is_terminal and (now - self.last_line > 10 or row["step"] == self.steps):
            self.last_line = now
            left = (now - self.began) / (row["step"] - self.start) * (self.steps - row["step"])
            self.say(f"step {row['step']}/{self.steps}  {text}  {left / 60:.1f} min left")
