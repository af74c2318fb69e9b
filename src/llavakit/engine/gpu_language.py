"""A language model in the kernels of a GPU: its matrices joined, rewritten where they are packed, and taken over."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from llavakit.engine.block_storage import OneSequence
from llavakit.engine.blocks import BLOCK
from llavakit.engine.fixed_storage import FixedStorage
from llavakit.engine.torch_language import HEADER
from llavakit.kernels.gpu.decoder import GpuDecoder
from llavakit.kernels.gpu.elementwise import add_and_norm, gate, rotate_heads, values_of
from llavakit.kernels.gpu.layers import GpuLayer, GpuModel, Sizes
from llavakit.kernels.gpu.matrix import GpuMatrix, can_code, coded_matrix, plain_matrix
from llavakit.kernels.gpu.persistent import persistent_decoder
from llavakit.kernels.packed import dequantize
from llavakit.model import LanguageModel
from llavakit.model.drop import Drop, attention_of, staying
from llavakit.model.language import DecoderLayer
from llavakit.model.layers import attend, rotary_angles
from llavakit.quantize.linear import PackedMatrix, QuantizedEmbedding, output_matrix


class GpuLanguage:
    """Rows of a plan, and prompts. Of the model its embeddings and norms stay; its layers are taken apart, one by one.

    So no weight is there twice. `dtype` is what is computed in.
    """

    @torch.no_grad()  # or the matrices that were joined would be kept for their gradients
    def __init__(
        self,
        language: LanguageModel,
        storage: FixedStorage,
        *,
        dtype: torch.dtype,
        most_rows: int,
        drop_after: int | None = None,
    ) -> None:
        config = language.config
        language.to(dtype)  # bytes are no floats, and stay
        self._dtype, self._config = dtype, config
        self._norm = language.norm.weight
        device = self._norm.device
        self._head = _joined(output_matrix(language))
        language.lm_head = nn.Identity()
        if isinstance(language.embed_tokens, QuantizedEmbedding):
            table = dequantize(language.embed_tokens.matrix).to(dtype)
            language.embed_tokens = nn.Embedding.from_pretrained(table)
        self._layers = []
        for index, (keys, values) in enumerate(zip(storage.keys, storage.values, strict=True)):
            self._layers.append(_taken(language.layers[index], keys, values))
            language.layers[index] = nn.Identity()
        cosine, sine = rotary_angles(
            torch.arange(config.max_positions, device=device)[None],
            head_dim=config.head_dim, theta=config.rope_theta, scaling=config.rope_scaling,
        )  # fmt: skip
        pairs = config.head_dim // 2
        self._cosine, self._sine = (angles[0, 0, :, :pairs].contiguous() for angles in (cosine, sine))
        model = GpuModel(
            layers=self._layers,
            sizes=Sizes(config.num_heads, config.num_kv_heads, config.head_dim, BLOCK, HEADER, config.rms_norm_eps),
            table=language.embed_tokens.weight,
            norm=self._norm,
            head=self._head,
            cosine=self._cosine,
            sine=self._sine,
            bias=storage.bias,
            drop_after=config.num_layers if drop_after is None else drop_after,
        )
        self._many, self._one = GpuDecoder(model, most_rows=most_rows), persistent_decoder(model)
        self._decode_bytes = model.nbytes

    def rows(self, plan: Int[Tensor, "rows numbers"]) -> Float[Tensor, "rows vocab"]:
        """The scores behind each token of a plan, computed and kept; they hold until the next call."""
        return self._many(plan) if self._one is None or len(plan) > 1 else self._one(plan)

    @property
    def decode_bytes(self) -> int:
        """Bytes of the weights that a decoded token reads."""
        return self._decode_bytes

    def prompt(
        self,
        embeds: Float[Tensor, "1 seq dim"],
        positions: Int[Tensor, "1 seq"],
        cache: OneSequence,
        bias: Float[Tensor, "1 seq"] | None,
        drop: Drop | None,
        num_logits: int,
    ) -> Float[Tensor, "num_logits vocab"]:
        """As the model itself, in products with many rows; whatever stands between them is one kernel each."""
        config, eps = self._config, self._config.rms_norm_eps
        hidden, where = embeds[0].to(self._dtype, copy=True), positions[0]
        mask = cache.mask(len(hidden), None if bias is None else bias.to(self._dtype))
        following = [layer.input_norm for layer in self._layers[1:]] + [self._norm]
        normed = add_and_norm(hidden, None, self._layers[0].input_norm, eps)
        turned = config.num_heads + config.num_kv_heads
        for index, (layer, norm) in enumerate(zip(self._layers, following, strict=True)):
            heads = F.linear(normed, values_of(layer.heads, self._dtype), layer.heads_bias)
            rotate_heads(heads, where, self._cosine, self._sine, turned=turned)
            apart = heads.unflatten(1, (-1, config.head_dim)).transpose(0, 1)[None]
            query, key, value = apart.split((config.num_heads, config.num_kv_heads, config.num_kv_heads), dim=1)
            key, value = cache.extend(index, key, value)
            mixed = attend(query, key, value, mask=mask, is_causal=mask is None and len(hidden) > 1)
            product = F.linear(mixed[0].transpose(0, 1).flatten(1), values_of(layer.out, self._dtype))
            normed = add_and_norm(hidden, product, layer.output_norm, eps)
            gated = gate(F.linear(normed, values_of(layer.gated, self._dtype)))
            normed = add_and_norm(hidden, F.linear(gated, values_of(layer.down, self._dtype)), norm, eps)
            if drop is not None and index + 1 == drop.after_layer:
                if drop.pictures:
                    stay = staying(attention_of(drop.asker, query[0], key[0]), drop.pictures)
                    hidden, normed, where = hidden[stay], normed[stay], where[stay]
                cache, mask = drop.cache, drop.cache.mask(len(hidden))
        wanted = normed[len(normed) - num_logits :]
        return (
            F.linear(wanted, values_of(self._head, self._dtype)) if num_logits else wanted.new_empty(0, self._head.rows)
        )


def can_take(language: LanguageModel) -> bool:
    """Whether the kernels divide these shapes, and the matrices they join are of a kind that they read."""
    config = language.config
    sides = config.hidden_size, config.intermediate_size, config.head_dim // 2
    joined = [parts for layer in language.layers for parts in _parts(layer)] + [(output_matrix(language),)]
    return all(side % 16 == 0 for side in sides) and all(_can_join(parts) for parts in joined)


def _can_join(parts: tuple[nn.Module, ...]) -> bool:
    packed = [part.matrix for part in parts if isinstance(part, PackedMatrix)]
    if not packed:
        return True
    is_one_kind = len({(one.kind, one.group) for one in packed}) == 1
    return len(packed) == len(parts) and is_one_kind and can_code(packed[0])


def _parts(layer: DecoderLayer) -> tuple[tuple[nn.Module, ...], ...]:
    """The matrices of a layer, and which of them are joined."""
    attention, mlp = layer.self_attn, layer.mlp
    heads = attention.q_proj, attention.k_proj, attention.v_proj
    return heads, (attention.o_proj,), (mlp.gate_proj, mlp.up_proj), (mlp.down_proj,)


def _taken(layer: DecoderLayer, keys: Tensor, values: Tensor) -> GpuLayer:
    heads, out, gated, down = _parts(layer)
    biases = [part.bias for part in heads if part.bias is not None]
    return GpuLayer(
        layer.input_layernorm.weight, _joined(*heads), torch.cat(biases) if biases else None, _joined(*out),
        layer.post_attention_layernorm.weight, _joined(*gated), _joined(*down), keys, values,
    )  # fmt: skip


def _joined(*parts: nn.Module) -> GpuMatrix:
    if isinstance(parts[0], PackedMatrix):
        return coded_matrix(*(part.matrix for part in parts))
    return plain_matrix(*(part.weight for part in parts))
