"""What is counted is what is allocated."""

from __future__ import annotations

import pytest
import torch

from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig
from llavakit.kernels import native
from llavakit.kernels.graph import KeysValues
from llavakit.model import KVCache, Llava
from llavakit.model.footprint import BITS, cache_bytes, weight_bytes
from llavakit.quantize.native import native_decoder

CONFIG = LlavaConfig(
    vision=VisionConfig(image_size=14, patch_size=7, hidden_size=8, intermediate_size=12, num_layers=3, num_heads=2),
    language=LanguageConfig(
        vocab_size=264,
        hidden_size=64,
        intermediate_size=96,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_positions=48,
    ),
    tokens=SpecialTokens(image=3),
)


@pytest.mark.parametrize("name", BITS)
def test_floats(name: str) -> None:
    model = Llava(CONFIG).to(getattr(torch, name))
    assert weight_bytes(model, BITS[name]) == sum(weight.nbytes for weight in model.parameters())
    cache = KVCache(CONFIG.language, capacity=48, dtype=getattr(torch, name))
    assert cache_bytes(CONFIG.language, 48, BITS[name]) == cache.keys.nbytes + cache.values.nbytes


@pytest.mark.skipif(native is None, reason="the native kernels are not built")
@pytest.mark.parametrize(("kept_as", "bits"), [("float16", 16), ("int8", 8)])
def test_keys_and_values_of_the_native_kernels(kept_as: KeysValues, bits: int) -> None:
    decoder = native_decoder(Llava(CONFIG).language.half().float(), "float16")
    assert cache_bytes(CONFIG.language, 48, bits) == decoder.new_cache(3, kept_as).nbytes
