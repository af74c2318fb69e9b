"""How much memory a model takes: its weights in some precision, and the keys and values of what it has read."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from llavakit.config import LanguageConfig
from llavakit.model.llava import Llava

BITS: Mapping[str, int] = MappingProxyType({"float32": 32, "bfloat16": 16})


def weight_bytes(model: Llava, bits: int) -> int:
    """Bytes of the weights of a model, which may be on `meta`, with so many bits for each."""
    return sum(weight.numel() for weight in model.parameters()) * bits // 8


def cache_bytes(config: LanguageConfig, num_tokens: int, bits: int = 16) -> int:
    """Bytes of the keys and values of so many tokens; 16 bits is what quantised models have for each.

    Those of 8 bits have a scale of four bytes for each head of a token, as the native kernels keep them.
    """
    width = config.head_dim * bits // 8 + (4 if bits == 8 else 0)
    return 2 * config.num_layers * config.num_kv_heads * width * num_tokens
