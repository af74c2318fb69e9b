"""The decoder of the Llama family (Touvron et al. 2023): embeddings in, hidden states out."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from llavakit.config import LanguageConfig
from llavakit.model.cache import Bias, Cache, biased_mask
from llavakit.model.layers import Mask, RMSNorm, attend, rotary_angles, rotate

Angles = tuple[Tensor, Tensor]


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
        query = rearrange(self.q_proj(x), "batch seq (heads dim) -> batch heads seq dim", heads=self.num_heads)
        key = rearrange(self.k_proj(x), "batch seq (heads dim) -> batch heads seq dim", heads=self.num_kv_heads)
        value = rearrange(self.v_proj(x), "batch seq (heads dim) -> batch heads seq dim", heads=self.num_kv_heads)
        query, key = rotate(query, *angles), rotate(key, *angles)
        if cache is not None:
            key, value = cache.extend(layer, key, value)
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
    ) -> Float[Tensor, "batch seq dim"]:
        """Hidden states after the final norm. With a cache, `embeds` are the tokens behind the cached ones.

        `bias` is added to the attention to each token: the logarithm of how many it stands for.
        """
        config = self.config
        angles = rotary_angles(
            positions, head_dim=config.head_dim, theta=config.rope_theta, scaling=config.rope_scaling
        )
        mask = self._mask(embeds, cache, bias)
        x = embeds
        for index, layer in enumerate(self.layers):
            x = layer(x, angles, mask, cache, index)
        if cache is not None:
            cache.advance(embeds.shape[1])
        return self.norm(x)

    @staticmethod
    def _mask(embeds: Float[Tensor, "batch seq dim"], cache: Cache | None, bias: Bias | None) -> Mask | None:
        number, bias = embeds.shape[1], None if bias is None else bias.to(embeds.dtype)
        if cache is not None:
            return cache.mask(number, bias)
        return None if bias is None else biased_mask(bias, number)
