"""The record of a run: a line of JSON now and then, and a picture of the curves."""

from __future__ import annotations

import json
import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from llavakit.checkpoint.atomic import atomic_file

PANEL = (560, 240)
MARGIN = (74, 32, 24, 34)  # left, top, right, bottom
INK, FAINT, LINE, RAW = "#202124", "#dadce0", "#1a73e8", "#b8d4f8"
SMOOTHED_OVER = 0.02  # share of the curve that the running mean looks back on


class Metrics:
    """metrics.jsonl of a run folder: one object a line, each with its step."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"
        self.rows = list(map(json.loads, _whole_lines(self.path)))

    def rewind(self, step: int) -> None:
        """Forget what came after `step`, for a run that resumes there."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        with atomic_file(self.path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, row: dict[str, float]) -> None:
        """Write one more line."""
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _whole_lines(path: Path) -> list[str]:
    """The lines of the file; what a kill or a full disk left without its end is no line."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def plot_curves(rows: list[dict[str, float]], path: Path, keys: tuple[str, ...]) -> None:
    """Draw one panel a key, the value over the step and its running mean, into a PNG."""
    panels = [_panel(rows, key) for key in keys if any(key in row for row in rows)]
    if not panels:
        return
    sheet = Image.new("RGB", (PANEL[0], PANEL[1] * len(panels)), "white")
    for number, panel in enumerate(panels):
        sheet.paste(panel, (0, number * PANEL[1]))
    with atomic_file(path) as partial:
        sheet.save(partial, "PNG")


def _panel(rows: list[dict[str, float]], key: str) -> Image.Image:
    points = [(row["step"], row[key]) for row in rows if key in row]
    panel = Image.new("RGB", PANEL, "white")
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(12)
    left, top, right, bottom = MARGIN
    box = (left, top, PANEL[0] - right, PANEL[1] - bottom)
    ups = ticks(min(value for _, value in points), max(value for _, value in points))
    acrosses = ticks(0, max(step for step, _ in points))

    def place(step: float, value: float) -> tuple[float, float]:
        across = step / acrosses[-1]
        up = (value - ups[0]) / (ups[-1] - ups[0])
        return box[0] + across * (box[2] - box[0]), box[3] - up * (box[3] - box[1])

    draw.text((left, 8), f"{key} over steps, {points[-1][1]:.4g} in the end", INK, font)
    for value in ups:
        y = place(0, value)[1]
        draw.line((box[0], y, box[2], y), FAINT)
        draw.text((box[0] - 6, y), f"{value:.6g}", INK, font, anchor="rm")
    for step in acrosses:
        draw.text((place(step, ups[0])[0], box[3] + 8), f"{step:.6g}", INK, font, anchor="mt")
    draw.line([place(step, value) for step, value in points], RAW, 1)
    draw.line([place(step, value) for step, value in smoothed(points)], LINE, 2)
    return panel


def ticks(lowest: float, highest: float) -> list[float]:
    """Three to seven round values, evenly spaced, that reach from `lowest` or below to `highest` or above."""
    span = (highest - lowest) or abs(highest) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    size = next(power * round_ for round_ in (1, 2, 5, 10) if power * round_ >= span / 4)
    first, last = math.floor(lowest / size), math.ceil(highest / size)
    return [number * size for number in range(first, max(last, first + 1) + 1)]


def smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The running mean, in which a point fades after `SMOOTHED_OVER` of the curve's length."""
    keep = 1 - 1 / max(SMOOTHED_OVER * len(points), 1)
    mean, weight, curve = 0.0, 0.0, []
    for step, value in points:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        curve.append((step, mean / weight))
    return curve
