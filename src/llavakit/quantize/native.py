"""A model's tower and decoder as native graphs. Packed tensors are read where they lie; floats are laid out anew."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from llavakit.kernels import Packed, native
from llavakit.kernels.graph import DecoderLayer, Matrix, NativeDecoder, NativeTower, TowerLayer
from llavakit.kernels.halves import Halves, exact_kind, halves
from llavakit.model import LanguageModel, Llava, VisionTower
from llavakit.model.layers import rotary_angles
from llavakit.quantize.linear import PackedMatrix, TiedHead

LARGEST_COPIED = 10**9  # weights of a model that is not quantised: they are laid out anew beside the model


NativeKind = Literal["packed", "float16", "bfloat16"]
"""What native graphs read: the packed matrices of a quantised model, or all matrices in 16 bits."""


def native_kind(model: Llava) -> NativeKind | None:
    """By what a model can be computed by native graphs without loss, on a CPU for which kernels are built.

    Quantised models can, and those whose weights were stored in 16 bits and are not too many; None for others.
    """
    language, vision = model.language, model.vision.config
    widths = (
        language.config.hidden_size,
        language.config.head_dim,
        language.config.intermediate_size,
        vision.hidden_size,
        vision.hidden_size // vision.num_heads,
        vision.intermediate_size,
    )
    on_cpu = native is not None and language.norm.weight.device.type == "cpu"
    if not on_cpu or any(width % 16 for width in widths):
        return None
    if isinstance(language.embed_tokens, PackedMatrix):
        return "packed"
    weights = [each.weight.detach() for each in model.modules() if isinstance(each, nn.Linear | nn.Embedding)]
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
    """For the tower of a model of this `native_kind`."""
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
