"""The language half of a GGUF model: what llama.cpp calls `llama` or `qwen2`."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
from gguf import GGMLQuantizationType as Type

from llavakit.checkpoint.gguf.file import Entry, Value, values
from llavakit.checkpoint.reader import StoredTensor, Tensors
from llavakit.checkpoint.rename import rename_back
from llavakit.checkpoint.tables import GGUF_LANGUAGE
from llavakit.config import LanguageConfig
from llavakit.model.layers import rotary_frequencies

Precision = Literal["f16", "q8_0", "q4_0"]

_TYPES = {"f16": Type.F16, "q8_0": Type.Q8_0, "q4_0": Type.Q4_0}
_BLOCK = 32  # numbers that share a scale, all in one row


def arch(config: LanguageConfig) -> str:
    """`qwen2` is `llama` with biases and our own rotary convention, for heads that make up the whole width.

    What it has no word for, `llama` has, biases too.
    """
    plain = config.num_heads * config.head_dim == config.hidden_size and not _has_factors(config)
    return "qwen2" if config.qkv_bias and plain else "llama"


def _has_factors(config: LanguageConfig) -> bool:
    return config.rope_scaling is not None and config.rope_scaling.kind == "llama3"


def metadata(config: LanguageConfig) -> dict[str, Value]:
    name = arch(config)
    described: dict[str, Value] = {
        f"{name}.vocab_size": config.vocab_size,
        f"{name}.context_length": config.max_positions,
        f"{name}.embedding_length": config.hidden_size,
        f"{name}.block_count": config.num_layers,
        f"{name}.feed_forward_length": config.intermediate_size,
        f"{name}.attention.head_count": config.num_heads,
        f"{name}.attention.head_count_kv": config.num_kv_heads,
        f"{name}.attention.key_length": config.head_dim,
        f"{name}.attention.value_length": config.head_dim,
        f"{name}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{name}.rope.dimension_count": config.head_dim,
        f"{name}.rope.freq_base": config.rope_theta,
    }
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        described[f"{name}.rope.scaling.type"] = "linear"
        described[f"{name}.rope.scaling.factor"] = config.rope_scaling.factor
    return described


def entries(config: LanguageConfig, tensors: Tensors, precision: Precision) -> list[Entry]:
    """The tensors by llama.cpp's names, in the precision that each is to have."""
    ours = {name: tensor for name, tensor in tensors.items() if name.startswith("language.")}
    found = [_entry(name, tensor, config, precision) for name, tensor in ours.items()]
    if _has_factors(config):
        found.append(Entry("rope_freqs.weight", (config.head_dim // 2,), Type.F32, partial(_factors, config)))
    return found


def _factors(config: LanguageConfig) -> np.ndarray:
    """By how much each pair of channels turns slower than without scaling."""
    plain = rotary_frequencies(config.head_dim, theta=config.rope_theta)
    return (plain / rotary_frequencies(config.head_dim, theta=config.rope_theta, scaling=config.rope_scaling)).numpy()


def _entry(name: str, tensor: StoredTensor, config: LanguageConfig, precision: Precision) -> Entry:
    theirs = rename_back(name, GGUF_LANGUAGE)
    assert theirs, name
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}.get(name.split(".")[-2])
    read = partial(_interleaved, tensor, heads) if heads and arch(config) == "llama" else partial(values, tensor)
    is_head = theirs == ("token_embd.weight" if config.tie_embeddings else "output.weight")
    return Entry(theirs, tensor.shape, _type(tensor.shape, precision, is_head), read)


def _type(shape: tuple[int, ...], precision: Precision, is_head: bool) -> Type:
    """Vectors stay float32, and the output matrix is never as coarse as 4 bits: as llama.cpp's own files have it."""
    if len(shape) == 1:
        return Type.F32
    if shape[-1] % _BLOCK:
        return Type.F16
    return Type.Q8_0 if is_head and precision == "q4_0" else _TYPES[precision]


def _interleaved(tensor: StoredTensor, num_heads: int) -> np.ndarray:
    """Rows in the order of llama.cpp's `llama`: it turns channels (2i, 2i+1) of a head, and we (i, i + half)."""
    weight = values(tensor)
    apart = weight.reshape(num_heads, 2, -1, *weight.shape[1:])
    return apart.swapaxes(1, 2).reshape(weight.shape)
