"""The pictures two models are shown: those of a folder, or a handful drawn here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from llavakit.processing.image import open_image

# Square, wide, tall, smaller than any tower, and larger than most: what resize modes and tiles treat differently.
_SIZES = ((336, 336), (401, 83), (120, 300), (23, 17), (1024, 700))


def drawn() -> dict[str, Image.Image]:
    """A picture of each size by its name; the same on every machine."""
    return {f"drawn {width}x{height}": _draw(width, height) for width, height in _SIZES}


def from_folder(folder: Path) -> dict[str, Image.Image]:
    """Every picture of a folder by its file name; raises ValueError if there is none, or one that cannot be read."""
    known = Image.registered_extensions()
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in known]
    if not files:
        raise ValueError(f"there is no picture in {folder}")
    return {path.name: open_image(path) for path in files}


def _draw(width: int, height: int) -> Image.Image:
    """Colours that change slowly, a few grains, and hard edges; no two corners alike, so that a turn shows."""
    down, across = np.mgrid[0:height, 0:width]
    grain = np.random.default_rng(0).integers(0, 32, (height, width))
    bands: Mapping[str, np.ndarray] = {
        "red": 223 * across / max(width - 1, 1),
        "green": 223 * down / max(height - 1, 1),
        "blue": 96 + grain,
    }
    image = Image.fromarray(np.stack(list(bands.values()), axis=-1).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    pen.rectangle((width // 8, height // 8, width // 3, height // 2), fill="white")
    pen.ellipse((width // 2, height // 3, width * 7 // 8, height * 7 // 8), fill="navy")
    return image
