"""What lies behind the things: chosen here, and painted here."""

import random
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from .scene import Background
from .vocabulary import BACKDROPS, LANDSCAPES, RGB, distance, from_hex

_KINDS = {"plain": 62, "graded": 10, "noise": 7, "stripes": 5, "dots": 4, "paper": 5, "landscape": 7}


def sample_background(rng: random.Random) -> Background:
    kind = rng.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
    angle = rng.choice((0.0, 45.0, 90.0, 135.0))
    if kind == "landscape":
        name = rng.choice(tuple(LANDSCAPES))
        return Background(kind, name, tuple(from_hex(code) for code in LANDSCAPES[name][0]), rng.uniform(0.45, 0.7))
    while True:
        name = rng.choices(tuple(BACKDROPS), [weight for weight, _ in BACKDROPS.values()])[0]
        first = from_hex(rng.choice(BACKDROPS[name][1]))
        if kind == "plain":
            return Background(kind, name, (first,))
        if kind == "paper" or name != "white":
            return Background(kind, name, (first, _second(first, kind, rng)), angle)


def _second(first: RGB, kind: str, rng: random.Random) -> RGB:
    """A shade near the first, so that the whole still has one colour."""
    light = sum(first) > 380
    while True:
        strength = rng.uniform(0.06, 0.16 if kind != "graded" else 0.24)
        factor = 1 - strength if light else 1 + 2.5 * strength
        second = tuple(max(0, min(255, round(c * factor + (0 if light else 10)))) for c in first)
        if 3 < distance(first, second) < 20:
            return second
        if not light:
            return tuple(min(255, c + 16) for c in first)


def paint(background: Background, width: int, height: int) -> Image.Image:
    """A new canvas with nothing on it yet."""
    return _PAINTERS[background.kind](background, width, height)


def _plain(background: Background, width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), background.colors[0])


def _blend(background: Background, mask: Image.Image) -> Image.Image:
    first, second = (Image.new("RGB", mask.size, color) for color in background.colors)
    return Image.composite(second, first, mask)


def _graded(background: Background, width: int, height: int) -> Image.Image:
    ramp = Image.linear_gradient("L").rotate(background.angle, Image.Resampling.BILINEAR)
    if background.angle % 90:
        ramp = ramp.crop((38, 38, 218, 218))
    return _blend(background, ramp.resize((width, height)))


def _stripes(background: Background, width: int, height: int) -> Image.Image:
    side = max(width, height)
    return _blend(
        background, _pattern("stripes").rotate(background.angle).resize((side, side)).crop((0, 0, width, height))
    )


def _dots(background: Background, width: int, height: int) -> Image.Image:
    side = max(width, height)
    return _blend(
        background, _pattern("dots").rotate(background.angle).resize((side, side)).crop((0, 0, width, height))
    )


@cache
def _pattern(kind: str) -> Image.Image:
    """A large pattern, to be turned and cut; dots and stripes too small and too pale to pass for shapes."""
    mask = Image.new("L", (320, 320))
    pen = ImageDraw.Draw(mask)
    for x in range(0, 320, 16):
        if kind == "stripes":
            pen.rectangle((x, 0, x + 7, 320), fill=255)
        else:
            for y in range(0, 320, 16):
                pen.ellipse((x + 5, y + 5, x + 10, y + 10), fill=255)
    return mask


def _noise(background: Background, width: int, height: int) -> Image.Image:
    return _blend(
        background, _grains(background.kind).crop((int(background.angle), 3, int(background.angle) + width, 3 + height))
    )


@cache
def _grains(kind: str) -> Image.Image:
    """One field of grains for all: fine for noise, soft for paper."""
    rng = np.random.default_rng(7)
    fine = rng.integers(0, 256, (300, 440), dtype=np.uint8)
    if kind == "noise":
        return Image.fromarray(fine)
    coarse = Image.fromarray(rng.integers(0, 256, (75, 110), dtype=np.uint8)).resize(
        (440, 300), Image.Resampling.BICUBIC
    )
    return Image.blend(coarse, Image.fromarray(fine), 0.4)


def _landscape(background: Background, width: int, height: int) -> Image.Image:
    """Sky over ground; `angle` says how far down the horizon is."""
    horizon = round(height * background.angle)
    ramp = Image.linear_gradient("L")
    high, low, near, far = background.colors
    canvas = Image.new("RGB", (width, height))
    for top, bottom, colors in ((0, horizon, (high, low)), (horizon, height, (near, far))):
        size = (width, bottom - top)
        canvas.paste(_blend(Background("graded", "", colors), ramp.resize(size)), (0, top))
    return canvas


_PAINTERS = {
    "plain": _plain,
    "graded": _graded,
    "stripes": _stripes,
    "dots": _dots,
    "noise": _noise,
    "paper": _noise,
    "landscape": _landscape,
}
