"""Quantised matrices as an accelerator wants them: codes in rows, which a compiled product reads as they are.

The packed layout is made for registers of CPUs. Here each number is rewritten once, and its value stays the same but
for int4 in small batches, whose operator wants scales in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from llavakit.kernels.packed import BITS, CENTER, NF4_LEVELS, Packed, dequantize, unpack
from llavakit.model import Llava
from llavakit.quantize.linear import PackedMatrix, QuantizedEmbedding, QuantizedLinear, TiedHead

MOST_TILED_ROWS = 32  # of activations; with more, a matrix product over the whole matrix in 16 bits is faster
_TILED_GROUPS = (32, 64, 128, 256)

Maker = Callable[["UnpackedLinear", torch.dtype], Tensor]


def make_matrix(linear: UnpackedLinear, dtype: torch.dtype) -> Float[Tensor, "rows cols"]:
    """The matrix of a layer, as a product wants it. Operator by operator that is some 25 bytes moved for a weight."""
    return linear.matrix().to(dtype)


class UnpackedLinear(nn.Module):
    """For `QuantizedLinear` of any kind: the matrix is made anew for each product, by `maker`.

    With one row of activations a compiler does that within the sum, so only the codes are read from memory.
    """

    levels: Tensor | None
    offsets: Tensor | None

    def __init__(self, packed: Packed, bias: Tensor | None, maker: Maker = make_matrix) -> None:
        super().__init__()
        self._maker = maker
        self.rows, self.cols, self.kind, self.group = packed.rows, packed.cols, packed.kind, packed.group
        self.is_halves, self.center = BITS[packed.kind] == 4, CENTER[packed.kind]
        codes, scales, offsets = unpack(packed)
        self.register_buffer("codes", self._rows_of(codes))
        self.register_buffer("scales", scales.clone())
        self.register_buffer("offsets", None if offsets is None else offsets.clone())
        levels = torch.tensor(NF4_LEVELS, device=codes.device) / 127 if packed.kind == "nf4" else None
        self.register_buffer("levels", levels)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def _rows_of(self, codes: UInt8[Tensor, "rows cols"]) -> UInt8[Tensor, "rows bytes"]:
        """Whole groups; of 4 bits two in a byte, the even column in the upper half."""
        filled = F.pad(codes, (0, -self.cols % self.group), value=self.center)
        return filled[:, 0::2] << 4 | filled[:, 1::2] if self.is_halves else filled.contiguous()

    def matrix(self) -> Float[Tensor, "rows cols"]:
        """In float32."""
        codes = self.codes
        if self.is_halves:
            codes = torch.stack((codes >> 4, codes & 15), dim=-1).flatten(1)
        codes = codes.unflatten(1, (-1, self.group))
        scales = self.scales.float()[..., None]
        if self.levels is not None:
            values = scales * self.levels[codes.int()]
        elif self.offsets is not None:
            values = scales * codes.float() + self.offsets.float()[..., None]
        else:
            values = scales * (codes.float() - self.center)
        return values.flatten(1)[:, : self.cols]

    def forward(self, x: Float[Tensor, "*batch cols"]) -> Float[Tensor, "*batch rows"]:
        return F.linear(x, self._maker(self, x.dtype), self.bias)


class TiledLinear(UnpackedLinear):
    """int4 and int4z in the tiles of torch's own operator ("tinygemm"), which reads 4 bits at the memory's speed.

    The codes stay beside them for products with many rows: that is 1 byte a weight instead of 2 in bfloat16.
    """

    def __init__(self, packed: Packed, bias: Tensor | None, maker: Maker = make_matrix) -> None:
        super().__init__(packed, bias, maker)
        self.register_buffer("tiles", tiles(self.codes))
        self.register_buffer("scales_and_zeros", scales_and_zeros(self.scales, self.offsets))

    def forward(self, x: Float[Tensor, "*batch cols"]) -> Float[Tensor, "*batch rows"]:
        if x.numel() > MOST_TILED_ROWS * self.cols:
            return super().forward(x)
        product = _operator(x.device.type)
        out = product(x.reshape(-1, self.cols), self.tiles, self.group, self.scales_and_zeros)
        out = out.view(*x.shape[:-1], self.rows)
        return out if self.bias is None else out + self.bias


def scales_and_zeros(scales: Tensor, offsets: Tensor | None) -> Tensor:
    """`groups rows 2`, in bfloat16: the operator computes (code - 8) * scale + zero."""
    zeros = torch.zeros_like(scales) if offsets is None else offsets.float() + 8 * scales.float()
    return torch.stack((scales.bfloat16(), zeros.bfloat16()), dim=-1).transpose(0, 1).contiguous()


def tiles(codes: UInt8[Tensor, "rows bytes"]) -> Tensor:
    """Codes, two in a byte, in the order of the operator."""
    inner = next(inner for inner in (8, 4, 2) if codes.shape[1] * 2 % (16 * inner) == 0)
    if codes.device.type == "cuda":
        return torch.ops.aten._convert_weight_to_int4pack(codes, inner)
    whole = torch.stack((codes >> 4, codes & 15), dim=-1).flatten(1).int()
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole, inner)


def can_tile(packed: Packed, dtype: torch.dtype) -> bool:
    """Whether torch's operator takes a matrix: on Nvidia cards from Ampere on, and on CPUs."""
    device = packed.data.device
    is_here = device.type == "cpu" or (
        device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
    )
    is_kind = packed.kind in ("int4", "int4z") and packed.group in _TILED_GROUPS and dtype == torch.bfloat16
    return is_here and is_kind and packed.rows % 16 == 0 and packed.cols % max(32, packed.group) == 0


@torch.no_grad()
def unpack_matrices(model: Llava, dtype: torch.dtype, maker: Maker = make_matrix) -> None:
    """Rewrite every packed matrix of a model in its place; what was computed in float32 beside is then in `dtype`.

    Codes stay codes where each token reads them: the layers of the decoder and its head. Tower, projector and
    embeddings, which are read seldom or a row at a time, become plain matrices. A model without packed matrices stays
    as it is. `maker` is `make_matrix`, or what a compiler made of it.
    """
    packed = {name: part for name, part in model.named_modules() if isinstance(part, PackedMatrix)}
    if not packed:
        return
    model.to(dtype)  # bytes are no floats, and stay
    if isinstance(model.language.lm_head, TiedHead):
        model.language.lm_head = _linear(model.language.embed_tokens.matrix, None, dtype, maker)
    for name in list(packed):
        model.set_submodule(name, _unpacked(name, packed.pop(name), dtype, maker))  # one at a time, as memory goes


def _unpacked(name: str, part: PackedMatrix, dtype: torch.dtype, maker: Maker) -> nn.Module:
    if isinstance(part, QuantizedLinear) and name.startswith("language."):
        return _linear(part.matrix, part.bias, dtype, maker)
    weight = nn.Parameter(dequantize(part.matrix).to(dtype), requires_grad=False)
    if isinstance(part, QuantizedEmbedding):
        return nn.Embedding.from_pretrained(weight)
    assert isinstance(part, QuantizedLinear)
    with torch.device("meta"):
        linear = nn.Linear(part.cols, part.rows, bias=part.bias is not None)
    linear.weight, linear.bias = weight, part.bias
    return linear


def _linear(packed: Packed, bias: Tensor | None, dtype: torch.dtype, maker: Maker) -> UnpackedLinear:
    return (TiledLinear if can_tile(packed, dtype) else UnpackedLinear)(packed, bias, maker)


def _operator(device: str) -> Callable[[Tensor, Tensor, int, Tensor], Tensor]:
    ops = torch.ops.aten
    return ops._weight_int4pack_mm if device == "cuda" else ops._weight_int4pack_mm_for_cpu
