"""The few layers that the towers share."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from llavakit.config import RopeScaling


def quick_gelu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The GELU approximation CLIP was trained with: x * sigmoid(1.702 x)."""
    return F.silu(1.702 * x) / 1.702


def gelu_tanh(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The GELU approximation SigLIP was trained with (Hendrycks & Gimpel 2016)."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": F.gelu, "gelu_tanh": gelu_tanh}


Mask = Bool[Tensor, "*rows seq all"] | Float[Tensor, "*rows seq all"]
"""True where one looks; or in floats what is added to the scores, minus infinity where one does not look."""


def attend(
    query: Float[Tensor, "batch heads seq dim"],
    key: Float[Tensor, "batch kv_heads all dim"],
    value: Float[Tensor, "batch kv_heads all dim"],
    *,
    mask: Mask | None = None,
    is_causal: bool = False,
) -> Float[Tensor, "batch heads seq dim"]:
    """Softmax attention, in which groups of query heads may share a key-value head.

    With gradients on CPU it is written out: at a few hundred tokens that is twice as fast as what torch offers there.
    """
    if query.device.type == "cpu" and query.requires_grad:
        return _attend_plainly(query, key, value, mask, is_causal)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=is_causal, enable_gqa=query.shape[1] != key.shape[1]
    )


def _attend_plainly(query: Tensor, key: Tensor, value: Tensor, mask: Mask | None, is_causal: bool) -> Tensor:
    seq, kv_heads = query.shape[2], key.shape[1]
    if is_causal:
        mask = torch.ones(seq, seq, dtype=torch.bool, device=query.device).tril()
    together = rearrange(
        query * query.shape[-1] ** -0.5, "batch (kv group) seq dim -> batch kv (group seq) dim", kv=kv_heads
    )
    scores = together @ key.transpose(-1, -2)
    if mask is not None:
        apart = rearrange(scores, "batch kv (group seq) all -> batch kv group seq all", seq=seq)
        mask = mask if mask.dim() == 2 else mask[:, None]  # of a batch: the same for every group
        apart = apart.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else apart + mask
        scores = apart.flatten(2, 3)
    mixed = scores.softmax(-1).to(value.dtype) @ value
    return rearrange(mixed, "batch kv (group seq) dim -> batch (kv group) seq dim", seq=seq)


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang & Sennrich 2019); the mean is taken in float32, as Llama does."""

    def __init__(self, dim: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        normed = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


def rotary_angles(
    positions: Int[Tensor, "batch seq"], *, head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[Float[Tensor, "batch 1 seq head_dim"], Float[Tensor, "batch 1 seq head_dim"]]:
    """Cosine and sine of each position's angles (Su et al. 2021), in float32."""
    frequencies = rotary_frequencies(head_dim, theta=theta, scaling=scaling, device=positions.device)
    angles = positions[:, None, :, None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotary_frequencies(
    head_dim: int, *, theta: float, scaling: RopeScaling | None = None, device: torch.device | str = "cpu"
) -> Float[Tensor, " pairs"]:
    """How far each pair of channels turns from one position to the next, in radians."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    return frequencies if scaling is None else _slowed(frequencies, scaling)


def _slowed(frequencies: Float[Tensor, " pairs"], scaling: RopeScaling) -> Float[Tensor, " pairs"]:
    """Radians per position, divided by the factor where the kind of scaling says so."""
    slow = frequencies / scaling.factor
    if scaling.kind == "linear":
        return slow
    turns = frequencies * scaling.original_positions / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    return slow.lerp(frequencies, ((turns - low) / (high - low)).clamp(0, 1))


def rotate(
    x: Float[Tensor, "batch heads seq head_dim"],
    cos: Float[Tensor, "batch 1 seq head_dim"],
    sin: Float[Tensor, "batch 1 seq head_dim"],
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Turn each pair (i, i + head_dim/2) by its angle: the half-split convention of Hugging Face checkpoints."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat((-second, first), dim=-1) * sin.to(x.dtype)
