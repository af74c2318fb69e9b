"""What is written about a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavakit.train.metrics import Metrics, plot_curves, smoothed, ticks


def test_rows_come_back(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.add({"step": 1, "loss": 2.5})
    metrics.add({"step": 2, "loss": 1.5})
    assert Metrics(tmp_path).rows == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 1.5}]


def test_a_resumed_run_forgets_what_it_will_do_again(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    for step in (1, 2, 3):
        metrics.add({"step": step})
    metrics.rewind(2)
    metrics.add({"step": 3, "again": 1})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1}, {"step": 2}, {"step": 3, "again": 1}]


@pytest.mark.parametrize("left", ['{"step": 2, "lo', '{"step": 2}'])
def test_a_line_without_an_end_is_none(tmp_path: Path, left: str) -> None:
    """What a kill or a full disk leaves."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' + left)
    metrics = Metrics(tmp_path)
    metrics.rewind(5)
    metrics.add({"step": 2})
    assert [json.loads(line)["step"] for line in metrics.path.read_text().splitlines()] == [1, 2]


def test_one_panel_a_curve(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 1 / step, "rate": 0.1} for step in range(1, 30)]
    plot_curves(rows, tmp_path / "two.png", ("loss", "unknown", "rate"))
    plot_curves(rows[:1], tmp_path / "one.png", ("loss",))
    plot_curves([], tmp_path / "none.png", ("loss",))
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "one.png") as one:
        assert two.height == 2 * one.height
        colours = {colour for _, colour in two.getcolors(1 << 16)}
    assert (0x1A, 0x73, 0xE8) in colours
    assert not (tmp_path / "none.png").exists()


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_hold_the_curve(lowest: float, span: float) -> None:
    highest = lowest + span
    values = ticks(lowest, highest)
    rounding = 1e-9 * (abs(lowest) + span)
    assert values[0] <= lowest + rounding and values[-1] >= highest - rounding
    assert 2 <= len(values) <= 7


def test_ticks_are_round() -> None:
    assert ticks(0.0003125, 0.0015) == pytest.approx([0, 0.0005, 0.001, 0.0015])
    assert ticks(0, 200) == [0, 50, 100, 150, 200]
    assert len(ticks(3, 3)) >= 2


def test_a_level_curve_stays_level() -> None:
    assert [value for _, value in smoothed([(step, 3.0) for step in range(500)])] == pytest.approx([3.0] * 500)
    steps = smoothed([(step, float(step > 250)) for step in range(500)])
    assert steps[250][1] == 0 and math.isclose(steps[-1][1], 1, abs_tol=1e-6)
