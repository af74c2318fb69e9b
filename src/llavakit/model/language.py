"""The decoder of the Llama family (Touvron et al. 2023): embeddings in, hidden states out."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from llavakit.config import LanguageConfig
from llavakit.model.cache import Bias, Cache, biased_mask
from llavakit.model.drop import Drop, attention_of, staying
from llavakit.model.layers import Mask, RMSNorm, attend, rotary_angles, rotate

Angles = tuple[Tensor, Tensor]
Query = Float[Tensor, "batch heads seq head_dim"]
Keys = Float[Tensor, "batch kv_heads all head_dim"]


class Attention(nn.Module):
    """Causal attention in which several query heads share one key-value head (Ainslie et al. 2023)."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        dim, head_dim = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(dim, config.num_heads * head_dim, bias=config.qkv_bias)
        self.k_proj = nn.Linear(dim, config.num_kv_heads * head_dim, bias=config.qkv_bias)
        self.v_proj = nn.Linear(dim, config.num_kv_heads * head_dim, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.num_heads * head_dim, dim, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch seq dim"],
        angles: Angles,
        mask: Mask | None,
        cache: Cache | None,
        layer: int,
    ) -> Float[Tensor, "batch seq dim"]:
        return self.mix(*self.heads(x, angles, cache, layer), mask)

    def heads(
        self, x: Float[Tensor, "batch seq dim"], angles: Angles, cache: Cache | None, layer: int
    ) -> tuple[Query, Keys, Keys]:
        """Queries, and all keys and values, the cached ones in front."""
        query = rearrange(self.q_proj(x), "batch seq (heads dim) -> batch heads seq dim", heads=self.num_heads)
        key = rearrange(self.k_proj(x), "batch seq (heads dim) -> batch heads seq dim", heads=self.num_kv_heads)
        value = rearrange(self.v_proj(x), "batch seq (heads dim) -> batch heads seq dim", heads=self.num_kv_heads)
        query, key = rotate(query, *angles), rotate(key, *angles)
        if cache is not None:
            key, value = cache.extend(layer, key, value)
        return query, key, value

    def mix(self, query: Query, key: Keys, value: Keys, mask: Mask | None) -> Float[Tensor, "batch seq dim"]:
        mixed = attend(query, key, value, mask=mask, is_causal=mask is None and query.shape[2] > 1)
        return self.o_proj(rearrange(mixed, "batch heads seq dim -> batch seq (heads dim)"))


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Float[Tensor, "batch seq dim"],
        angles: Angles,
        mask: Mask | None,
        cache: Cache | None,
        layer: int,
    ) -> Float[Tensor, "batch seq dim"]:
        x = x + self.self_attn(self.input_layernorm(x), angles, mask, cache, layer)
        return x + self.mlp(self.post_attention_layernorm(x))

    def looking(
        self,
        x: Float[Tensor, "1 seq dim"],
        angles: Angles,
        mask: Mask | None,
        cache: Cache | None,
        layer: int,
        asker: int,
    ) -> tuple[Float[Tensor, "1 seq dim"], Float[Tensor, " seq"]]:
        """The same, and how much token `asker` attends to each of the tokens; nothing to those behind it."""
        query, key, value = self.self_attn.heads(self.input_layernorm(x), angles, cache, layer)
        x = x + self.self_attn.mix(query, key, value, mask)
        return x + self.mlp(self.post_attention_layernorm(x)), attention_of(asker, query[0], key[0])


class LanguageModel(nn.Module):
    """Embeds tokens, turns embeddings into hidden states, and hidden states into logits.

    Rows of a batch are padded on the right: causal attention then never lets a real token see padding.
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = None if config.tie_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def embed(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
        return self.embed_tokens(tokens)

    def logits(self, hidden: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        """Scores of the next token; the caller chooses which positions deserve them."""
        return F.linear(hidden, self.embed_tokens.weight) if self.lm_head is None else self.lm_head(hidden)

    @property
    def output_weight(self) -> Float[Tensor, "vocab dim"]:
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(
        self,
        embeds: Float[Tensor, "batch seq dim"],
        positions: Int[Tensor, "batch seq"],
        cache: Cache | None = None,
        bias: Bias | None = None,
        drop: Drop | None = None,
    ) -> Float[Tensor, "batch kept dim"]:
        """Hidden states after the final norm. With a cache, `embeds` are the tokens behind the cached ones.

        `bias` is added to the attention to each token: the logarithm of how many it stands for. Where later layers
        `drop` tokens, those that stay have hidden states.
        """
        layers = range(self.config.num_layers)
        if drop is None:
            return self.norm(self._through(layers, embeds, positions, cache, bias))
        assert bias is None
        if drop.pictures:
            x, positions = self._until_dropped(drop, embeds, positions, cache)
        else:
            x = self._through(layers[: drop.after_layer], embeds, positions, cache)
        return self.norm(self._through(layers[drop.after_layer :], x, positions, drop.cache))

    def _through(
        self,
        layers: range,
        x: Float[Tensor, "batch seq dim"],
        positions: Int[Tensor, "batch seq"],
        cache: Cache | None,
        bias: Bias | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        angles, mask = self._angles(positions), self._mask(x, cache, bias)
        for index in layers:
            x = self.layers[index](x, angles, mask, cache, index)
        if cache is not None:
            cache.advance(x.shape[1])
        return x

    def _until_dropped(
        self, drop: Drop, x: Float[Tensor, "1 seq dim"], positions: Int[Tensor, "1 seq"], cache: Cache | None
    ) -> tuple[Float[Tensor, "1 kept dim"], Int[Tensor, "1 kept"]]:
        """What stays behind the layer that looks, and its positions."""
        angles, mask, last = self._angles(positions), self._mask(x, cache, None), drop.after_layer - 1
        for index in range(last):
            x = self.layers[index](x, angles, mask, cache, index)
        x, attention = self.layers[last].looking(x, angles, mask, cache, last, drop.asker)
        if cache is not None:
            cache.advance(x.shape[1])
        stay = staying(attention, drop.pictures)
        return x[:, stay], positions[:, stay]

    def _angles(self, positions: Int[Tensor, "batch seq"]) -> Angles:
        config = self.config
        return rotary_angles(positions, head_dim=config.head_dim, theta=config.rope_theta, scaling=config.rope_scaling)

    @staticmethod
    def _mask(embeds: Float[Tensor, "batch seq dim"], cache: Cache | None, bias: Bias | None) -> Mask | None:
        number, bias = embeds.shape[1], None if bias is None else bias.to(embeds.dtype)
        if cache is not None:
            return cache.mask(number, bias)
        return None if bias is None else biased_mask(bias, number)
