"""Models by their shapes alone: speed does not depend on values, so random weights do for a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch

from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig, nearest
from llavakit.model import Llava

FLOATS = ("float32", "bfloat16")  # number formats of a model that is not quantised

SHAPES: Mapping[str, LlavaConfig] = MappingProxyType(
    {
        "llava-1.5-7b": LlavaConfig(),
        # For trying the benchmark itself.
        "tiny": LlavaConfig(
            vision=VisionConfig(
                image_size=56, hidden_size=64, intermediate_size=128, num_layers=3, num_heads=2, feature_layer=-2
            ),
            language=LanguageConfig(
                vocab_size=512, hidden_size=256, intermediate_size=512, num_layers=8, num_heads=4, num_kv_heads=4,
                head_dim=64,
            ),
            tokens=SpecialTokens(image=512),
        ),
    }
)  # fmt: skip


def find_shapes(name: str) -> LlavaConfig:
    """The shapes of this name; ValueError that names the nearest."""
    if name not in SHAPES:
        raise ValueError(f"there are no shapes called {name!r}: {nearest(name, list(SHAPES))}")
    return SHAPES[name]


def random_model(config: LlavaConfig, *, dtype: torch.dtype, seed: int = 0, device: str = "cpu") -> Llava:
    """A model of these shapes. Its memory is filled from one small random block: billions of draws take minutes."""
    with torch.device("meta"):
        model = Llava(config)
    model = model.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    block = torch.empty(1 << 20).normal_(0, 0.02, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
    for weight in model.parameters():
        flat = weight.view(-1)
        for start in range(0, len(flat), len(block)):
            part = flat[start : start + len(block)]
            part.copy_(block[: len(part)])
    return model
