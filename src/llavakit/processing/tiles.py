"""A picture of any resolution as views: the base tile, which shows all of it, then the tiles of its canvas."""

from __future__ import annotations

import numpy as np
from einops import rearrange
from jaxtyping import Float32, UInt8
from PIL import Image

from llavakit.anyres import choose_canvas, fit, tile_grid
from llavakit.config import TilingConfig, VisionConfig
from llavakit.processing.image import normalise, preprocess


def preprocess_tiles(
    image: Image.Image, vision: VisionConfig, tiling: TilingConfig
) -> Float32[np.ndarray, "views 3 size size"]:
    """The base tile, stretched to a square, then the tiles of the canvas, row by row, normalised for the tower.

    Bicubic, as Pillow does it. Upstream: `process_anyres_image`. Raises ValueError if the picture is not RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"preprocess_tiles takes an RGB picture, not mode {image.mode!r}; open_image makes one.")
    base = preprocess(image, vision, "stretch")
    tiles = _cut(_on_canvas(image, tiling), vision.image_size)
    return np.stack([base, *(normalise(tile, vision.image_mean, vision.image_std) for tile in tiles)])


def _on_canvas(image: Image.Image, tiling: TilingConfig) -> Image.Image:
    """The whole picture in the middle of a black canvas."""
    size = choose_canvas(image.size, tiling.pinpoints)
    fitted, offset = fit(image.size, size)
    canvas = Image.new("RGB", size)
    canvas.paste(image.resize(fitted, Image.Resampling.BICUBIC), offset)
    return canvas


def _cut(canvas: Image.Image, size: int) -> UInt8[np.ndarray, "tiles size size 3"]:
    columns, rows = tile_grid(canvas.size, size)
    pixels = np.asarray(canvas)
    return rearrange(pixels, "(rows h) (columns w) rgb -> (rows columns) h w rgb", rows=rows, columns=columns)
