"""What a person sees, on a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from llavakit.train.progress import Progress

ROW = {"loss": 1.25, "match": 0.5, "patch": 0.75, "found": 0.125, "rate": 1e-3, "tokens_per_s": 1234.0}


def test_a_log_has_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """However long they are, and whatever they spell."""
    with Progress("runs/a", 0, 2) as progress:
        progress.say("[red] is no colour here; " + "word " * 60)
        progress.show({"step": 2, **ROW})
    said, step = capsys.readouterr().err.splitlines()
    assert said.startswith("[red] is no colour") and len(said) > 300
    assert step == "step 2/2  loss 1.250  match 0.500  found 0.125  patch 0.750  1234 tok/s  0:00:00 left"


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_bar_stays_on_its_line(width: int) -> None:
    screen = io.StringIO()
    progress = Progress("runs/pocket-clip", 3, 1600)
    progress.bar.live.console = Console(file=screen, force_terminal=True, width=width)
    with progress.bar:
        progress.show({"step": 4, **ROW})
        lines = progress.bar.live.console.render_lines(progress.bar.get_renderable())
    assert len(lines) == 1
