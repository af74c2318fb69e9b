"""How much memory a model takes: its weights in some precision, and the keys and values of what it has read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from llavakit.config import LanguageConfig
from llavakit.model.llava import Llava


@dataclass(frozen=True)
class Precision:
    """Bits for each number: `matrix` of the language model's matrices, `other` of all the rest, the cache included."""

    matrix: float
    other: int


# Whole numbers in groups of 32, each group with a scale of 16 bits, as in llama.cpp's Q8_0 and Q4_0.
GROUPED = "; int8 and int4: the language model's matrices, in groups of 32"
PRECISIONS: Mapping[str, Precision] = MappingProxyType(
    {
        "float32": Precision(32, 32),
        "bfloat16": Precision(16, 16),
        "int8": Precision(8 + 16 / 32, 16),
        "int4": Precision(4 + 16 / 32, 16),
    }
)


def weight_bytes(model: Llava, precision: Precision) -> int:
    """Bytes of the weights of a model, which may be on `meta`."""
    matrices = sum(part.weight.numel() for part in model.language.modules() if isinstance(part, nn.Linear))
    others = sum(weight.numel() for weight in model.parameters()) - matrices
    return round((matrices * precision.matrix + others * precision.other) / 8)


def cache_bytes(config: LanguageConfig, num_tokens: int, precision: Precision) -> int:
    """Bytes of the keys and values of so many tokens."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * num_tokens * precision.other // 8
