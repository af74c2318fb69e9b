"""A quantised model's tower and decoder as native graphs, which read its very tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llavakit.kernels import native
from llavakit.kernels.graph import DecoderLayer, Matrix, NativeDecoder, NativeTower, TowerLayer
from llavakit.model import LanguageModel, Llava, VisionTower
from llavakit.model.layers import rotary_angles
from llavakit.quantize.linear import PackedMatrix, QuantizedLinear, TiedHead


def is_native(model: Llava) -> bool:
    """Whether a model can be computed by native graphs: quantised, on a CPU for which kernels are built."""
    language, vision = model.language, model.vision.config
    return (
        native is not None
        and isinstance(language.embed_tokens, PackedMatrix)
        and language.embed_tokens.packed.device.type == "cpu"
        and all(
            width % 16 == 0
            for width in (
                language.config.hidden_size,
                language.config.head_dim,
                language.config.intermediate_size,
                vision.hidden_size,
                vision.hidden_size // vision.num_heads,
                vision.intermediate_size,
            )
        )
    )


def native_decoder(language: LanguageModel) -> NativeDecoder:
    """For a language model all of whose matrices are packed."""
    config = language.config
    positions = torch.arange(config.max_positions)[None]
    cosine, sine = rotary_angles(
        positions, head_dim=config.head_dim, theta=config.rope_theta, scaling=config.rope_scaling
    )
    half = config.head_dim // 2
    head = language.lm_head
    return NativeDecoder(
        [
            DecoderLayer(
                _numbers(layer.input_layernorm.weight),
                _numbers(layer.post_attention_layernorm.weight),
                *(_matrix(getattr(layer.self_attn, name)) for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
                *(_matrix(getattr(layer.mlp, name)) for name in ("gate_proj", "up_proj", "down_proj")),
            )
            for layer in language.layers
        ],
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        eps=config.rms_norm_eps,
        norm=_numbers(language.norm.weight),
        embedding=language.embed_tokens.matrix,
        head=language.embed_tokens.matrix if isinstance(head, TiedHead) else head.matrix,
        cosine=cosine[0, 0, :, :half].contiguous(),
        sine=sine[0, 0, :, :half].contiguous(),
    )


def native_tower(tower: VisionTower) -> NativeTower:
    """For a tower all of whose layers' matrices are packed."""
    return NativeTower(
        [
            TowerLayer(
                *(
                    _numbers(value)
                    for norm in (layer.layer_norm1, layer.layer_norm2)
                    for value in (norm.weight, norm.bias)
                ),
                *(_matrix(getattr(layer.self_attn, name)) for name in ("q_proj", "k_proj", "v_proj", "out_proj")),
                _matrix(layer.mlp.fc1),
                _matrix(layer.mlp.fc2),
            )
            for layer in tower.layers
        ],
        dim=tower.config.hidden_size,
        num_heads=tower.config.num_heads,
        eps=tower.config.layer_norm_eps,
        activation=tower.config.activation,
    )


def _matrix(linear: nn.Module) -> Matrix:
    assert isinstance(linear, QuantizedLinear), "only quantised models become native graphs"
    return Matrix(linear.matrix, None if linear.bias is None else _numbers(linear.bias))


def _numbers(value: Tensor) -> Tensor:
    return value.detach().float().contiguous()
