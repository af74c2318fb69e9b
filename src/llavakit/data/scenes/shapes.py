"""The outlines of the ten shapes, each in many variants that all go by the same name."""

import math
import random

import numpy as np

Points = np.ndarray  # [n, 2]


def outline(name: str, angle: float, grain: int, wobble: float = 0.0) -> Points:
    """The closed outline of a shape, turned by `angle` degrees, around 0 and with a longer side of 1."""
    rng = random.Random(grain)
    points = np.array(_OUTLINES[name](rng), dtype=np.float64)
    turn = math.radians(angle)
    points = points @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    if wobble:
        points = _unsteady(points, wobble, rng)
    low, high = points.min(0), points.max(0)
    return (points - (low + high) / 2) / (high - low).max()


def _unsteady(points: Points, wobble: float, rng: random.Random) -> Points:
    """The outline as a hand with a mouse would draw it: slow waves along the line."""
    following = np.roll(points, -1, axis=0)
    steps = np.linspace(0, 1, max(1, 60 // len(points)), endpoint=False)[None, :, None]
    dense = (points[:, None] + (following - points)[:, None] * steps).reshape(-1, 2)
    t = np.linspace(0, 2 * math.pi, len(dense), endpoint=False)
    extent = np.ptp(points, axis=0).max()
    for waves in (2, 3, 5, 8):
        for axis in (0, 1):
            dense[:, axis] += extent * wobble / waves * rng.uniform(-1, 1) * np.sin(waves * t + rng.uniform(0, 6.3))
    return dense


def _ellipse(rx: float, ry: float) -> list[tuple[float, float]]:
    return [(rx * math.cos(t * math.pi / 24), ry * math.sin(t * math.pi / 24)) for t in range(48)]


def _box(w: float, h: float) -> list[tuple[float, float]]:
    return [(-w, -h), (w, -h), (w, h), (-w, h)]


def _triangle(rng: random.Random) -> list[tuple[float, float]]:
    variant = rng.random()
    if variant < 0.5:
        return [(0, -0.87), (1, 0.87), (-1, 0.87)]
    if variant < 0.8:
        return [(0, -1), (rng.uniform(0.65, 1.2), 1), (-rng.uniform(0.65, 1.2), 1)]
    return [(-1, -0.9), (1, 0.9), (-1, 0.9)]


def _star(rng: random.Random) -> list[tuple[float, float]]:
    inner = rng.choice((0.382, 0.382, rng.uniform(0.36, 0.52)))
    radii = [1 if k % 2 == 0 else inner for k in range(10)]
    return [(r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)) for k, r in enumerate(radii)]


def _heart(rng: random.Random) -> list[tuple[float, float]]:
    turns = [k * math.pi / 24 for k in range(48)]
    if rng.random() < 0.6:
        wide = rng.uniform(0.9, 1.1)
        heights = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in turns]
        return [(wide * 16 * math.sin(t) ** 3, -y) for t, y in zip(turns, heights, strict=True)]
    lobes = [k * math.pi / 14 for k in range(15)]  # two half circles over a point
    left = [(-0.5 - 0.5 * math.cos(t), -0.5 * math.sin(t)) for t in lobes]
    right = [(0.5 - 0.5 * math.cos(t), -0.5 * math.sin(t)) for t in lobes]
    return [*left, *right, (0, rng.uniform(1.05, 1.35))]


def _cross(rng: random.Random) -> list[tuple[float, float]]:
    a = rng.uniform(0.2, 0.38)
    return [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]


def _arrow(rng: random.Random) -> list[tuple[float, float]]:
    shaft, head, neck = rng.uniform(0.16, 0.3), rng.uniform(0.5, 0.75), rng.uniform(-0.05, 0.35)
    return [(-1, -shaft), (neck, -shaft), (neck, -head), (1, 0), (neck, head), (neck, shaft), (-1, shaft)]


_OUTLINES = {
    "circle": lambda rng: _ellipse(1, 1),
    "oval": lambda rng: _ellipse(1, 1 / rng.uniform(1.5, 2.1)),
    "square": lambda rng: _box(1, 1),
    "rectangle": lambda rng: _box(1, 1 / rng.uniform(1.6, 2.5)),
    "diamond": lambda rng: [(0, -1), (wide := rng.choice((1.0, rng.uniform(0.55, 0.8))), 0), (0, 1), (-wide, 0)],
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "arrow": _arrow,
}


def turn(name: str, rng: random.Random) -> float:
    """An angle at which the shape still goes by its name."""
    slight = rng.choice((0.0, 0.0, rng.uniform(-12, 12)))
    match name:
        case "arrow":
            return rng.choice((0, 0, 90, 180, 180, 270, rng.uniform(0, 360))) + slight
        case "star":
            return rng.choice((0, 0, rng.uniform(0, 72)))
        case "triangle":
            return rng.choice((0, 0, 0, 180, 90, rng.uniform(0, 360))) + slight
        case "oval" | "rectangle":
            return rng.choice((0, 0, 90, rng.uniform(-35, 35))) + slight
        case "cross":
            return rng.choice((0, 0, 0, 45)) + slight
        case "heart":
            return slight * 2
        case _:
            return slight * 0.8
