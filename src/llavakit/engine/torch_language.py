"""A language model in torch: prompts, and many single tokens, each a row by itself, in shapes that stay the same.

What changes from step to step is data: the plan, one row of integers for each token. So a step can be recorded as a
graph, once for each number of rows and blocks, that a GPU replays without waiting for Python.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llavakit.engine.block_storage import OneSequence
from llavakit.engine.blocks import BLOCK
from llavakit.engine.fixed_storage import FixedStorage
from llavakit.model import LanguageModel
from llavakit.model.drop import Drop
from llavakit.model.language import Angles, Attention, DecoderLayer
from llavakit.model.layers import rotary_angles, rotate
from llavakit.quantize.linear import output_matrix

# Token, rotary position, place in its sequence, and place among what the later layers keep of that, where they do
# without some visual tokens; the numbers of its blocks follow.
HEADER = 4


@dataclass(frozen=True)
class Where:
    """Where the rows of a plan stand: their rotary angles, the slots of their sequences, and their own."""

    angles: Angles
    slots: Int[Tensor, "rows all"]
    own: Int[Tensor, " rows"]
    is_hidden: Tensor
    bias: Tensor | None  # of the attention to each slot


class TorchLanguage:
    """A language model in torch, for any device: what `GpuLanguage` does, and its twin.

    Tokens of one sequence may stand in the same step, one behind the other: each is written before any is read.
    """

    def __init__(self, language: LanguageModel, storage: FixedStorage, *, drop_after: int | None = None) -> None:
        self._language, self._storage = language, storage
        self._drop_after = language.config.num_layers if drop_after is None else drop_after

    @property
    def decode_bytes(self) -> int:
        """Bytes of the weights that a decoded token reads."""
        language = self._language
        read = language.layers, language.norm, output_matrix(language)
        parts = [part for module in read for part in module.modules()]
        return sum(
            numbers.nbytes
            for part in parts
            for numbers in [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        )

    def rows(self, plan: Int[Tensor, "rows numbers"]) -> Float[Tensor, "rows vocab"]:
        """The scores behind each token. It sees its sequence up to itself, its place included."""
        language, storage = self._language, self._storage
        config = language.config
        angles = rotary_angles(
            plan[None, :, 1], head_dim=config.head_dim, theta=config.rope_theta, scaling=config.rope_scaling
        )
        where, later = (where_in(plan, plan[:, column], angles, storage.bias) for column in (2, 3))
        x = language.embed(plan[None, :, 0]).to(storage.keys[0].dtype)
        for index, (layer, keys, values) in enumerate(zip(language.layers, storage.keys, storage.values, strict=True)):
            x = one_layer(layer, x, keys, values, where if index < self._drop_after else later)
        return language.logits(language.norm(x)[0])

    def prompt(
        self,
        embeds: Float[Tensor, "1 seq dim"],
        positions: Int[Tensor, "1 seq"],
        cache: OneSequence,
        bias: Float[Tensor, "1 seq"] | None,
        drop: Drop | None,
        num_logits: int,
    ) -> Float[Tensor, "num_logits vocab"]:
        """The scores behind the last tokens of one sequence."""
        hidden = self._language(embeds, positions, cache, bias, drop)[0]
        return self._language.logits(hidden[len(hidden) - num_logits :])


def where_in(
    plan: Int[Tensor, "rows numbers"],
    places: Int[Tensor, " rows"],
    angles: Angles,
    bias: Float[Tensor, " slots"] | None,
) -> Where:
    """What a layer needs to know of the places of its rows."""
    slots = (plan[:, HEADER:, None] * BLOCK + torch.arange(BLOCK, device=plan.device)).flatten(1)
    is_hidden = torch.arange(slots.shape[1], device=plan.device) > places[:, None]
    own = slots.gather(1, places[:, None])[:, 0]
    return Where(angles, slots, own, is_hidden, None if bias is None else bias[slots])


def one_layer(
    layer: DecoderLayer,
    x: Float[Tensor, "1 rows dim"],
    keys: Float[Tensor, "kv_heads slots head_dim"],
    values: Float[Tensor, "kv_heads slots head_dim"],
    where: Where,
) -> Float[Tensor, "1 rows dim"]:
    """A layer of the decoder; the keys and values of the rows are written into those of all."""
    query, key, value = _heads(layer.self_attn, layer.input_layernorm(x), where.angles)
    keys[:, where.own], values[:, where.own] = key, value
    mixed = attend_apart(query, keys[:, where.slots], values[:, where.slots], where.is_hidden, where.bias)
    x = x + layer.self_attn.o_proj(mixed.to(x.dtype)[None])
    return x + layer.mlp(layer.post_attention_layernorm(x))


def _heads(attention: Attention, x: Tensor, angles: Angles) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, `heads rows head_dim` each, the first two turned to their positions."""
    query, key, value = (
        linear(x)[0].unflatten(1, (heads, -1)).transpose(0, 1)
        for linear, heads in (
            (attention.q_proj, attention.num_heads),
            (attention.k_proj, attention.num_kv_heads),
            (attention.v_proj, attention.num_kv_heads),
        )
    )
    return rotate(query[None], *angles)[0], rotate(key[None], *angles)[0], value


def attend_apart(
    query: Float[Tensor, "heads rows head_dim"],
    keys: Float[Tensor, "kv_heads rows all head_dim"],
    values: Float[Tensor, "kv_heads rows all head_dim"],
    is_hidden: Tensor,
    bias: Tensor | None = None,
) -> Float[Tensor, "rows width"]:
    """Attention of one query a row, each row over keys of its own, in float32."""
    kv_heads, rows, _, head_dim = keys.shape
    together = query.float().unflatten(0, (kv_heads, -1)).transpose(1, 2) * head_dim**-0.5
    scores = (together[:, :, :, None] * keys[:, :, None].float()).sum(-1)
    if bias is not None:
        scores = scores + bias[None, :, None].float()
    weights = scores.masked_fill(is_hidden[None, :, None], -torch.inf).softmax(-1)
    # Hidden values are made zero too: not even a weight of 0 hides a NaN that a failed request left behind.
    seen = values[:, :, None].float().masked_fill(is_hidden[None, :, None, :, None], 0)
    mixed = (weights[..., None] * seen).sum(-2)
    return mixed.permute(1, 0, 2, 3).reshape(rows, -1)
