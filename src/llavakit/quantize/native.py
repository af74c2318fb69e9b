"""A model's tower and decoder as native graphs. Packed tensors are read where they lie; floats are laid out anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from llavakit.kernels import Packed, native
from llavakit.kernels.graph import DecoderLayer, Matrix, NativeDecoder, NativeTower, TowerLayer
from llavakit.kernels.halves import Halves, exact_kind, halves
from llavakit.model import LanguageModel, Llava, VisionTower
from llavakit.model.layers import rotary_angles
from llavakit.quantize.linear import PackedMatrix, TiedHead

LARGEST_COPIED = 10**9  # weights of a part that is not quantised: they are laid out anew beside the model


NativeKind = Literal["packed", "float16", "bfloat16"]
"""What native graphs read: the packed matrices of a quantised model, or all matrices in 16 bits."""


def native_kind(model: Llava) -> NativeKind | None:
    """By what a model's language model can be computed by a native graph without loss, where kernels are built for it.

    Quantised ones can, and those whose weights were stored in 16 bits and are not too many; None for others.
    """
    config = model.language.config
    return _kind_of(model.language, (config.hidden_size, config.head_dim, config.intermediate_size))


def native_tower_kind(model: Llava) -> NativeKind | None:
    """The same of its vision tower, which may well be for torch where the language model is not, or the other way."""
    config = model.vision.config
    widths = (config.hidden_size, config.hidden_size // config.num_heads, config.intermediate_size)
    return _kind_of(model.vision, widths)


def _kind_of(part: LanguageModel | VisionTower, widths: Sequence[int]) -> NativeKind | None:
    if native is None or next(part.parameters()).device.type != "cpu" or any(width % 16 for width in widths):
        return None
    if any(isinstance(each, PackedMatrix) for each in part.modules()):
        return "packed"
    weights = [each.weight.detach() for each in part.modules() if isinstance(each, nn.Linear | nn.Embedding)]
    if sum(weight.numel() for weight in weights) > LARGEST_COPIED:
        return None
    return exact_kind(weights)


class _Matrices:
    """The matrices of one part of a model as the kernels take them, each made once."""

    def __init__(self, kind: NativeKind) -> None:
        self._kind = kind
        self._made: dict[nn.Module, Packed | Halves] = {}

    def weight(self, of: nn.Module) -> Packed | Halves:
        if self._kind == "packed":
            return of.matrix
        if of not in self._made:
            self._made[of] = halves(of.weight.detach(), self._kind)
        return self._made[of]

    def matrix(self, linear: nn.Module) -> Matrix:
        return Matrix(self.weight(linear), None if linear.bias is None else _numbers(linear.bias))


def native_decoder(language: LanguageModel, kind: NativeKind = "packed") -> NativeDecoder:
    """For the language model of a model of this `native_kind`."""
    config = language.config
    positions = torch.arange(config.max_positions)[None]
    cosine, sine = rotary_angles(
        positions, head_dim=config.head_dim, theta=config.rope_theta, scaling=config.rope_scaling
    )
    half = config.head_dim // 2
    made = _Matrices(kind)
    is_tied = language.lm_head is None or isinstance(language.lm_head, TiedHead)
    return NativeDecoder(
        [
            DecoderLayer(
                _numbers(layer.input_layernorm.weight),
                _numbers(layer.post_attention_layernorm.weight),
                *(made.matrix(getattr(layer.self_attn, name)) for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
                *(made.matrix(getattr(layer.mlp, name)) for name in ("gate_proj", "up_proj", "down_proj")),
            )
            for layer in language.layers
        ],
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        eps=config.rms_norm_eps,
        norm=_numbers(language.norm.weight),
        embedding=made.weight(language.embed_tokens),
        head=made.weight(language.embed_tokens if is_tied else language.lm_head),
        cosine=cosine[0, 0, :, :half].contiguous(),
        sine=sine[0, 0, :, :half].contiguous(),
    )


def native_tower(tower: VisionTower, kind: NativeKind = "packed") -> NativeTower:
    """For the tower of a model of this `native_tower_kind`."""
    made = _Matrices(kind)
    return NativeTower(
        [
            TowerLayer(
                *(
                    _numbers(value)
                    for norm in (layer.layer_norm1, layer.layer_norm2)
                    for value in (norm.weight, norm.bias)
                ),
                *(made.matrix(getattr(layer.self_attn, name)) for name in ("q_proj", "k_proj", "v_proj", "out_proj")),
                made.matrix(layer.mlp.fc1),
                made.matrix(layer.mlp.fc2),
            )
            for layer in tower.layers
        ],
        dim=tower.config.hidden_size,
        num_heads=tower.config.num_heads,
        eps=tower.config.layer_norm_eps,
        activation=tower.config.activation,
    )


def _numbers(value: Tensor) -> Tensor:
    return value.detach().float().contiguous()
