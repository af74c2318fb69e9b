"""Geometry of pictures of any resolution: how one is cut into tiles, and how many tokens it becomes.

Plain numbers, one place, used by processor, model, engine and explanation. Sizes are (width, height) in pixels, grids
are (columns, rows) of tiles or patches. Scales are floating-point numbers, as they are in both public
implementations (upstream: `llava/mm_utils.py`), so that ties and roundings fall alike.
"""

# a picture        its canvas: fitted, black around it     the canvas's patches, unpadded, a newline behind each row
#                  +-----+-----+                           . . . . . . . .
#  +-------+       |#####|#####|                           # # # # # # # # n
#  |#######|  ->   |-----+-----|  -> 4 tiles, and a   ->   # # # # # # # # n
#  +-------+       |#####|#####|     base tile that        # # # # # # # # n
#                  +-----+-----+     shows all of it       . . . . . . . .

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from llavakit.config import Compat, LlavaConfig, TilingConfig, VisionConfig

Size = tuple[int, int]

PartlyKept = tuple[int, int, int]
"""A picture's tokens [first, end), and how many of them the later layers of the language model read."""

POOL_FROM = 1.1  # a canvas this many times too long and wide is pooled; a smaller excess is left alone


def choose_canvas(size: Size, pinpoints: Sequence[Size]) -> Size:
    """The pinpoint that keeps most of a picture's pixels, and of those the one with least around it; the first wins.

    Upstream: `select_best_resolution`.
    """
    width, height = size

    def merit(canvas: Size) -> tuple[int, int]:
        scale = min(canvas[0] / width, canvas[1] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - canvas[0] * canvas[1]

    return max(pinpoints, key=merit)


def tile_grid(canvas: Size, tile_size: int) -> Size:
    """The tiles of a canvas, which is a whole number of them each way."""
    return canvas[0] // tile_size, canvas[1] // tile_size


def fit(size: Size, canvas: Size) -> tuple[Size, Size]:
    """A picture's size inside its canvas, as large as it can be, and where its upper left corner then is.

    Upstream: `resize_and_pad_image`.
    """
    (width, height), (full_width, full_height) = size, canvas
    across, down = full_width / width, full_height / height
    if across < down:
        fitted = full_width, min(math.ceil(height * across), full_height)
    else:
        fitted = min(math.ceil(width * down), full_width), full_height
    return fitted, ((full_width - fitted[0]) // 2, (full_height - fitted[1]) // 2)


def unpadded_grid(size: Size, grid: Size, compat: Compat) -> Size:
    """What remains of a canvas's grid of patches without those around the picture; as many go on either side.

    A very thin picture may leave nothing. Upstream: `unpad_image`, whose rounding `compat` chooses: the original cuts
    off floating-point numbers, which now and then lie just below the whole number that Hugging Face's come to.
    """
    (width, height), (columns, rows) = size, grid
    if width * rows > columns * height:
        kept = height * columns // width if compat == "hf" else int(height * (columns / width))
        return columns, rows - (rows - kept) // 2 * 2
    kept = width * rows // height if compat == "hf" else int(width * (rows / height))
    return columns - (columns - kept) // 2 * 2, rows


def pooled_grid(grid: Size, max_patches: int) -> Size:
    """The grid a canvas is resized to where it has clearly more than `max_patches` (LLaVA-OneVision, `anyres_max`)."""
    excess = math.sqrt(grid[0] * grid[1] / max_patches)
    return (int(grid[0] // excess), int(grid[1] // excess)) if excess > POOL_FROM else grid


def row_grid(size: Size, vision: VisionConfig, tiling: TilingConfig) -> tuple[Size, Size]:
    """Patches of a picture's canvas that are left when it is unpadded, and those that it is then pooled to."""
    columns, rows = tile_grid(choose_canvas(size, tiling.pinpoints), vision.image_size)
    side = vision.image_size // vision.patch_size
    unpadded = unpadded_grid(size, (columns * side, rows * side), tiling.compat)
    return unpadded, pooled_grid(unpadded, tiling.max_tiles * side**2) if tiling.max_tiles else unpadded


def num_views(width: int, height: int, config: LlavaConfig) -> int:
    """How many pictures the tower sees of a picture: one, or with tiles the base tile and the others."""
    _check(width, height)
    if config.resize_mode != "anyres":
        return 1
    columns, rows = tile_grid(choose_canvas((width, height), config.tiling.pinpoints), config.vision.image_size)
    return 1 + columns * rows


def num_image_tokens(width: int, height: int, config: LlavaConfig) -> int:
    """Placeholders, and so feature vectors, for a picture of `width` x `height` pixels.

    The resize modes `square` and `pad` bring every picture to one view, whatever its size. Where fewer visual tokens
    are made before the language model, every view gives that many, and there are no rows that a newline could end.
    """
    _check(width, height)
    vision, tiling = config.vision, config.tiling
    if tiling is None or tiling.merge != "spatial_unpad" or config.condensing:
        return num_views(width, height, config) * config.num_view_tokens
    if config.resize_mode != "anyres":
        return vision.num_features + 1
    _, (columns, rows) = row_grid((width, height), vision, tiling)
    return vision.num_features + rows * (columns + 1)


def num_kept_tokens(width: int, height: int, config: LlavaConfig) -> int:
    """How many of these the later layers of a language model read that drops the others.

    As many for each view as were asked for, whichever view they are of; at most all.
    """
    all_tokens = num_image_tokens(width, height, config)
    if config.dropping is None:
        return all_tokens
    return min(all_tokens, num_views(width, height, config) * config.dropping.count)


def partly_kept(spans: Sequence[tuple[int, int]], sizes: Sequence[Size], config: LlavaConfig) -> list[PartlyKept]:
    """The pictures of a prompt by their spans and sizes; none where nothing is dropped."""
    if config.dropping is None:
        return []
    config = config.for_pictures(len(sizes))
    return [(*span, num_kept_tokens(*size, config)) for span, size in zip(spans, sizes, strict=True)]


def token_positions(num_tokens: int, spans: Sequence[tuple[int, int]], config: LlavaConfig) -> list[int]:
    """The rotary position of each token of a prompt; `spans` are the half-open image spans.

    Where fewer visual tokens are made before the language model, what follows a picture stands as far behind it as it
    was trained to, so that positions jump there; a placeholder has the position of its view's first patch, and the
    model adds at which patch its feature stands. Without that, a token's position is its index.
    """
    positions = list(range(num_tokens))
    if config.condensing is None:
        return positions
    kept, full = config.condensing.count, config.vision.num_patches
    moved = 0
    for (start, end), (following, _) in pairwise([*spans, (num_tokens, num_tokens)]):
        positions[start:end] = [start + moved + at // kept * full for at in range(end - start)]
        moved += (end - start) // kept * (full - kept)
        positions[end:following] = range(end + moved, following + moved)
    return positions


def _check(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width}x{height} pixels has no area")
