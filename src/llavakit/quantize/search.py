"""A matrix in few bits, so that what it multiplies comes out nearly the same.

Two things are looked for. The scale of each group: a handful of candidates is rounded, and the one kept that leaves
the least squared error, each column counted as heavily as the inputs it meets are large (as in AWQ, Lin et al. 2023).
For whole numbers q the best scale is sum(h w q) / sum(h q q), so one look at a candidate tells its best scale too.

And the numbers: what rounding a column gets wrong is made good in the columns behind it, as far as the inputs of the
two go together. That is GPTQ (Frantar et al. 2022), here within blocks of columns, so that little has to be known of
the inputs. Without calibration every number is simply the nearest.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from llavakit.kernels.packed import CENTER, NF4_LEVELS, Packed, gather_rows, pack
from llavakit.quantize.moments import BLOCK, Moments
from llavakit.quantize.schemes import Grid

# Whole numbers that the largest weight of a group may become: beyond the range it is cut off, within it the others are
# rounded more finely. Of 4 bits one sign has a number more than the other.
_PEAKS = {
    "int4": (-9.2, -8.8, -8.4, -8.0, -7.7, -7.4, -7.1, -6.8, -6.4, 8.2, 7.7, 7.3, 7.0, 6.6),
    "nf4": (-148.0, -138.0, -132.0, -127.0, -121.0, 148.0, 138.0, 132.0, 127.0, 121.0),
    "int8": (127.0,),
}
_UNIT = {"int4": 1, "nf4": 127, "int8": 1}  # whole numbers that a scale stands for
_ROUNDS = 2  # of improving scale and numbers in turn, once the best candidate is known
_AT_ONCE = 1 << 20  # weights: what is worked on stays in a processor's cache
_DAMPING = 0.01  # of the mean square of the inputs, added to each: no input is trusted to be nothing
_LARGEST = torch.finfo(torch.float16).max


def quantize_matrix(weight: Float[Tensor, "rows cols"], grid: Grid, moments: Moments | None = None) -> Packed:
    """The matrix in numbers of `grid`; `moments` of its inputs, where they are known.

    Raises ValueError for a matrix with numbers that are none, or too large for any scale.
    """
    rows, cols = weight.shape
    blocks = _Blocks(cols, moments)
    codes = torch.empty(rows, cols, dtype=torch.uint8)
    scales = torch.empty(rows, -(-cols // grid.group), dtype=torch.float16)
    step = max(1, _AT_ONCE // cols)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        codes[part], scales[part] = blocks.quantize(weight[part].float(), grid)
    return pack(codes, scales, kind=grid.kind, group=grid.group)


def product_error(weight: Float[Tensor, "rows cols"], packed: Packed, moments: Moments | None = None) -> float:
    """How far products with the packed matrix are off, relative to the products: root of the ratio of mean squares.

    Over the inputs that `moments` are of; without them, over inputs that do not go together and are equally large.
    """
    wrong, whole = 0.0, 0.0
    step = max(1, _AT_ONCE // packed.cols)
    mean = None if moments is None else moments.mean
    for start in range(0, packed.rows, step):
        ids = torch.arange(start, min(start + step, packed.rows))
        exact = weight[start : start + step].float()
        wrong += _energy(exact - gather_rows(packed, ids), mean)
        whole += _energy(exact, mean)
    return math.sqrt(wrong / whole) if whole else 0.0


def _energy(matrix: Tensor, mean: Tensor | None) -> float:
    """The mean square of its products, but for the number of inputs."""
    if mean is None:
        return float(matrix.square().sum(dtype=torch.float64))
    blocks = F.pad(matrix, (0, -matrix.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK)).transpose(0, 1)
    return float(((blocks @ mean) * blocks).sum(dtype=torch.float64))


class _Blocks:
    """The columns in blocks, and what is known of the inputs of each; `spread` says where a column's error goes.

    With H the second moments of a block's inputs, that is the upper Cholesky factor of the inverse of H, each row
    divided by its diagonal.
    """

    def __init__(self, cols: int, moments: Moments | None) -> None:
        self.cols, self.missing = cols, -cols % BLOCK
        self.spread: Tensor | None = None
        self.heaviness = torch.ones((cols + self.missing) // BLOCK, 1, BLOCK)
        if moments is None or not moments.sums.any():
            return
        mean = moments.mean
        diagonal = mean.diagonal(dim1=1, dim2=2)
        damping = _DAMPING * diagonal.sum() / cols
        damped = (mean + damping * torch.eye(BLOCK)).double()
        upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
        self.spread = (upper / upper.diagonal(dim1=1, dim2=2)[..., None]).float()
        self.heaviness = (diagonal + damping)[:, None]

    def quantize(self, weight: Float[Tensor, "rows cols"], grid: Grid) -> tuple[Tensor, Tensor]:
        """Codes and scales of some rows."""
        left = F.pad(weight, (0, self.missing)).unflatten(1, (-1, BLOCK)).transpose(0, 1).contiguous()
        codes = torch.empty(left.shape, dtype=torch.uint8)
        scales = torch.empty(*left.shape[:2], BLOCK // grid.group, dtype=torch.float16)
        for index, start in enumerate(range(0, BLOCK, grid.group)):
            group = slice(start, start + grid.group)
            scales[..., index] = _scales(left[..., group], self.heaviness[..., group], grid.kind)
            codes[..., group] = self._round(left, group, scales[..., index], grid.kind)
        codes, scales = (part.transpose(0, 1).flatten(1) for part in (codes, scales))
        return codes[:, : self.cols], scales[:, : -(-self.cols // grid.group)]

    def _round(self, left: Tensor, group: slice, scales: Tensor, kind: str) -> Tensor:
        """The codes of a group in each block; `left`, what is still to be rounded, takes its error behind it."""
        unit = (scales.float() / _UNIT[kind])[..., None]
        divisor = unit.masked_fill(unit == 0, torch.inf)
        if self.spread is None:
            return _codes(_whole(left[..., group] / divisor, kind), kind)
        codes = torch.empty(*left.shape[:2], group.stop - group.start, dtype=torch.uint8)
        errors = torch.empty(codes.shape)
        for place, column in enumerate(range(group.start, group.stop)):
            here = left[..., column : column + 1]
            whole = _whole(here / divisor, kind)
            codes[..., place : place + 1] = _codes(whole, kind)
            error = here - whole * unit
            errors[..., place : place + 1] = error
            behind = slice(column + 1, group.stop)
            left[..., behind] -= error * self.spread[:, column, None, behind]
        left[..., group.stop :] -= errors @ self.spread[:, group, group.stop :]
        return codes


def _scales(
    weights: Float[Tensor, "blocks rows group"], heaviness: Float[Tensor, "blocks 1 group"], kind: str
) -> Float[Tensor, "blocks rows"]:
    """The scale of each group, in float16; zero for a group of zeros."""
    low, high = weights.amin(-1), weights.amax(-1)
    peak = torch.where(-low > high, low, high)
    if not peak.isfinite().all():
        raise ValueError("it holds numbers that are infinite or none at all, which no scale can bring back")
    heavy = weights * heaviness
    divisor = peak.masked_fill(peak == 0, 1.0)
    best_gain, unit = torch.zeros_like(peak), torch.zeros_like(peak)

    def fit(whole: Tensor) -> tuple[Tensor, Tensor]:
        """The best scale for these numbers, and the part of the error that it takes away."""
        along, across = (heavy * whole).sum(-1), (heaviness * whole * whole).sum(-1).clamp_min(1e-30)
        return along / across, along * along / across

    for wanted in _PEAKS[kind]:
        candidate, gain = fit(_whole(weights * (wanted / divisor)[..., None], kind))
        is_better = gain > best_gain
        best_gain, unit = gain.where(is_better, best_gain), candidate.where(is_better, unit)
    for _ in range(_ROUNDS):
        unit, _ = fit(_whole(weights / unit.masked_fill(unit == 0, 1.0)[..., None], kind))
    scale = unit * _UNIT[kind]
    if scale.abs().max() > _LARGEST:
        raise ValueError(f"it holds weights up to {peak.abs().max():.3g}, too large for a scale in float16")
    return scale.half()


def _whole(x: Tensor, kind: str) -> Tensor:
    """The nearest number that the kind has."""
    if kind == "nf4":
        levels = torch.tensor(NF4_LEVELS, dtype=torch.float32)
        return levels[torch.bucketize(x, (levels[1:] + levels[:-1]) / 2)]
    return x.round().clamp_(-8, 7) if kind == "int4" else x.round().clamp_(-127, 127)


def _codes(whole: Tensor, kind: str) -> Tensor:
    if kind == "nf4":
        return torch.bucketize(whole, torch.tensor(NF4_LEVELS, dtype=torch.float32)).to(torch.uint8)
    return (whole + CENTER[kind]).to(torch.uint8)
