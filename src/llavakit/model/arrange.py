"""The features of a picture's views in the order in which the language model reads them (LLaVA-NeXT).

The base tile first, then the canvas; `llavakit.anyres` has the geometry.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from llavakit.anyres import Size, choose_canvas, row_grid, tile_grid
from llavakit.config import LlavaConfig


def arrange(
    views: Float[Tensor, "views features dim"], size: Size, config: LlavaConfig, newline: Float[Tensor, " dim"] | None
) -> Float[Tensor, "image_tokens dim"]:
    """One picture of `size`, (width, height): as many vectors as `num_image_tokens` counts.

    `newline`, for merge mode `spatial_unpad`, ends every row of the canvas, or of a view that is the only one.
    """
    tiling = config.tiling
    if tiling.merge == "flat":
        return views.flatten(0, 1)
    base, tiles = views[0], views[1:]
    if len(tiles) == 0:
        return base if newline is None else end_rows(base[None], newline)[0]
    canvas = join_tiles(tiles, tile_grid(choose_canvas(size, tiling.pinpoints), config.vision.image_size))
    if newline is not None:
        unpadded, pooled = row_grid(size, config.vision, tiling)
        canvas = end_rows(pool(unpad(canvas, unpadded), pooled), newline)
    return torch.cat((base, canvas.flatten(0, 1)))


def join_tiles(tiles: Float[Tensor, "tiles patches dim"], grid: Size) -> Float[Tensor, "rows columns dim"]:
    """The patches of all tiles where they lie on the canvas; `grid` is (columns, rows) of tiles."""
    columns, rows = grid
    side = round(tiles.shape[1] ** 0.5)
    return rearrange(
        tiles, "(rows columns) (h w) dim -> (rows h) (columns w) dim", rows=rows, columns=columns, h=side, w=side
    )


def unpad(canvas: Float[Tensor, "rows columns dim"], grid: Size) -> Float[Tensor, "kept_rows kept_columns dim"]:
    """The middle of the canvas: `grid` is (columns, rows) of patches that are left."""
    top, left = (canvas.shape[0] - grid[1]) // 2, (canvas.shape[1] - grid[0]) // 2
    return canvas[top : top + grid[1], left : left + grid[0]]


def pool(canvas: Float[Tensor, "rows columns dim"], grid: Size) -> Float[Tensor, "pooled_rows pooled_columns dim"]:
    """The canvas resized to `grid`, (columns, rows) of patches; bilinear, as LLaVA-OneVision has it."""
    if grid == (canvas.shape[1], canvas.shape[0]):
        return canvas
    image = rearrange(canvas, "rows columns dim -> 1 dim rows columns")
    return rearrange(F.interpolate(image, grid[::-1], mode="bilinear"), "1 dim rows columns -> rows columns dim")


def end_rows(
    canvas: Float[Tensor, "rows columns dim"], newline: Float[Tensor, " dim"]
) -> Float[Tensor, "rows columns+1 dim"]:
    """The newline vector behind each row."""
    ends = newline.to(canvas.dtype).expand(len(canvas), 1, -1)
    return torch.cat((canvas, ends), dim=1)
