"""The words of the drawn world for form, colour, size, place and background, and the numbers behind them."""

import colorsys
import random

RGB = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "rectangle", "oval", "star", "heart", "diamond", "cross", "arrow")
SIZES = {"small": (0.19, 0.245), "medium": (0.30, 0.37), "large": (0.45, 0.60)}  # of the picture's long side
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PLACES = (
    ("top left", "top", "top right"),
    ("left", "center", "right"),
    ("bottom left", "bottom", "bottom right"),
)

# hue in degrees, saturation and lightness in percent; between two names there is a gap nobody would argue about
_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-6, 6), (75, 100), (42, 56)),
    "orange": ((24, 36), (88, 100), (48, 58)),
    "yellow": ((50, 60), (85, 100), (48, 66)),
    "green": ((95, 150), (45, 100), (22, 48)),
    "blue": ((205, 238), (65, 100), (32, 60)),
    "purple": ((268, 290), (45, 90), (26, 50)),
    "pink": ((322, 350), (70, 100), (70, 84)),
    "brown": ((16, 30), (45, 80), (20, 35)),
    "black": ((0, 360), (0, 12), (0, 9)),
    "gray": ((0, 360), (0, 4), (42, 66)),
    "white": ((0, 360), (0, 5), (96, 100)),
}
COLORS = tuple(name for name in _RANGES if name != "white")  # of shapes and things
INKS = tuple(_RANGES)  # of words and numbers

# what people get when they ask a drawing program for a colour by name or click on its palette
_PALETTES: dict[str, tuple[str, ...]] = {
    "red": ("ff0000", "ed1c24", "d62728", "e53935", "dc143c", "ff0000"),
    "orange": ("ffa500", "ff7f27", "ff7f0e", "ff8c00", "fb8c00"),
    "yellow": ("ffff00", "fff200", "ffeb3b", "ffd700", "fdd835"),
    "green": ("008000", "22b14c", "2ca02c", "00ff00", "4caf50", "228b22", "00cc00"),
    "blue": ("0000ff", "3f48cc", "1f77b4", "1e90ff", "2196f3", "00a2e8", "4169e1", "000080"),
    "purple": ("800080", "a349a4", "9467bd", "9c27b0", "8a2be2", "663399"),
    "pink": ("ffc0cb", "ffaec9", "ff69b4", "ff8fb1", "f48fb1"),
    "brown": ("a52a2a", "8b4513", "8c564b", "b97a57", "795548", "a0522d"),
    "black": ("000000", "000000", "111111", "1a1a1a"),
    "gray": ("808080", "7f7f7f", "a0a0a0", "9e9e9e", "7e7e7e"),
    "white": ("ffffff",),
}

# a simple landscape: its colours from the top down, and how it is spoken of
LANDSCAPES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "meadow": (("9fd3f7", "cfeafc", "7cc06a", "5faa4e"), "in", "a green meadow under a blue sky"),
    "beach": (("a8daf5", "d6effc", "f3deac", "e9cf92"), "on", "a sandy beach under a blue sky"),
    "night": (("0a1030", "1b2550", "10241c", "0a1812"), "in", "a dark night"),
    "snow": (("c9dcec", "e2edf5", "f6f9fc", "ffffff"), "in", "a snowy field"),
}

# name of a background: how likely it is, and its shades
BACKDROPS: dict[str, tuple[int, tuple[str, ...]]] = {
    "white": (46, ("ffffff", "ffffff", "ffffff", "fcfcfc", "fafafa")),
    "light gray": (6, ("dcdcdc", "d3d3d3", "e4e4e4")),
    "light yellow": (6, ("fff8dc", "fdf5c9", "fffacd", "fff3bf")),
    "light blue": (8, ("cfe8fc", "add8e6", "d6eaff", "bfe3f5")),
    "light green": (6, ("d8f0d0", "c8e6c9", "dff5d8", "bfe8b8")),
    "light pink": (4, ("fde4ec", "ffe4e6", "fbdce8")),
    "light purple": (4, ("e6dcf8", "e1d5f5", "ece2fa")),
    "black": (5, ("000000", "0c0c0c", "141414")),
    "dark blue": (5, ("0b1d4a", "10265c", "14213d", "1a237e")),
    "dark green": (3, ("0f3d24", "14452a", "1b4332")),
    "gray": (3, ("8c8c8c", "808080", "969696")),
    "orange": (1, ("ffa94d", "ff9f43")),
    "yellow": (1, ("ffe94d", "fff04a")),
    "blue": (2, ("3f7fd9", "2f6fd0", "4a90e2")),
    "green": (1, ("3fa34d", "4caf50")),
    "red": (1, ("c62828", "d63031")),
}


def from_hex(code: str) -> RGB:
    return int(code[0:2], 16), int(code[2:4], 16), int(code[4:6], 16)


def shade(name: str, rng: random.Random) -> RGB:
    """One of the many colours that everybody calls by this name."""
    if rng.random() < 0.4:
        return from_hex(rng.choice(_PALETTES[name]))
    hue, saturation, lightness = (rng.uniform(*bounds) for bounds in _RANGES[name])
    r, g, b = colorsys.hls_to_rgb(hue % 360 / 360, lightness / 100, saturation / 100)
    return round(r * 255), round(g * 255), round(b * 255)


def typical(name: str) -> RGB:
    """The middle of a named colour."""
    hue, saturation, lightness = (sum(bounds) / 2 for bounds in _RANGES[name])
    r, g, b = colorsys.hls_to_rgb(hue % 360 / 360, lightness / 100, saturation / 100)
    return round(r * 255), round(g * 255), round(b * 255)


def distance(a: RGB, b: RGB) -> float:
    """How different two colours look (CIE 1976, in Lab)."""
    return sum((x - y) ** 2 for x, y in zip(_lab(a), _lab(b), strict=True)) ** 0.5


def lightness(rgb: RGB) -> float:
    """From 0, black, to 100, white, as it looks."""
    return _lab(rgb)[0]


def _lab(rgb: RGB) -> tuple[float, float, float]:
    r, g, b = ((c / 255 + 0.055) ** 2.4 / 1.1349 if c > 10 else c / 3294.6 for c in rgb)
    x, y, z = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
    )
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)
