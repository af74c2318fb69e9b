"""What is counted is what is allocated."""

from __future__ import annotations

import pytest
import torch

from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig
from llavakit.model import KVCache, Llava
from llavakit.model.footprint import PRECISIONS, cache_bytes, weight_bytes

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


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_floats(name: str) -> None:
    model = Llava(CONFIG).to(getattr(torch, name))
    assert weight_bytes(model, PRECISIONS[name]) == sum(weight.nbytes for weight in model.parameters())
    cache = KVCache(CONFIG.language, capacity=48, dtype=getattr(torch, name))
    assert cache_bytes(CONFIG.language, 48, PRECISIONS[name]) == cache.keys.nbytes + cache.values.nbytes


@pytest.mark.parametrize(("name", "bytes_of_group"), [("int8", 34), ("int4", 18)])
def test_groups_of_32(name: str, bytes_of_group: int) -> None:
    with torch.device("meta"):
        model = Llava(CONFIG)
    total = 0
    for weight_name, weight in model.named_parameters():
        is_matrix = "proj.weight" in weight_name or "lm_head" in weight_name
        if weight_name.startswith("language.") and is_matrix:
            total += weight.numel() // 32 * bytes_of_group
        else:
            total += weight.numel() * 2
    assert weight_bytes(model, PRECISIONS[name]) == total
