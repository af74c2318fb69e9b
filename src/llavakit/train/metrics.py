"""The record of a run: a line of JSON now and then, and a picture of the curves."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PANEL = (560, 240)
MARGIN = (70, 30, 20, 34)  # left, top, right, bottom
INK, FAINT, LINE = "#202124", "#dadce0", "#1a73e8"


class Metrics:
    """metrics.jsonl of a run folder: one object a line, each with its step."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"
        self.rows = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def rewind(self, step: int) -> None:
        """Forget what came after `step`, for a run that resumes there."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def plot_curves(rows: list[dict[str, float]], path: Path, keys: tuple[str, ...]) -> None:
    """Draw one panel a key, the value over the step, into a PNG."""
    panels = [_panel(rows, key) for key in keys if any(key in row for row in rows)]
    if not panels:
        return
    sheet = Image.new("RGB", (PANEL[0], PANEL[1] * len(panels)), "white")
    for number, panel in enumerate(panels):
        sheet.paste(panel, (0, number * PANEL[1]))
    sheet.save(path)


def _panel(rows: list[dict[str, float]], key: str) -> Image.Image:
    points = [(row["step"], row[key]) for row in rows if key in row]
    panel = Image.new("RGB", PANEL, "white")
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(12)
    left, top, right, bottom = MARGIN
    box = (left, top, PANEL[0] - right, PANEL[1] - bottom)
    lowest, highest = min(value for _, value in points), max(value for _, value in points)
    last = max(step for step, _ in points)

    def place(step: float, value: float) -> tuple[float, float]:
        across = step / max(last, 1)
        up = (value - lowest) / (highest - lowest) if highest > lowest else 0.5
        return box[0] + across * (box[2] - box[0]), box[3] - up * (box[3] - box[1])

    draw.text((left, 8), key, INK, font)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = lowest + share * (highest - lowest)
        x, y = place(share * last, value)
        draw.line((box[0], y, box[2], y), FAINT)
        draw.text((box[0] - 6, y), f"{value:.4g}", INK, font, anchor="rm")
        draw.text((x, box[3] + 8), f"{share * last:.0f}", INK, font, anchor="mt")
    draw.line([place(step, value) for step, value in points], LINE, 2)
    return panel
