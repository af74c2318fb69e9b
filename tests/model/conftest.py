"""Tiny LLaVA models of transformers, with weights that make every mistake show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
    "projection_dim": 8,
}
TEXT = {
    "vocab_size": 80,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
IMAGE_TOKEN = 70

LANGUAGES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}
EOS = {"eos_token_id": 2}  # Qwen2 has no default
FAMILIES = {
    "llava": (LlavaConfig, LlavaForConditionalGeneration),
    "next": (LlavaNextConfig, LlavaNextForConditionalGeneration),
    "onevision": (LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration),
}
TOWERS = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig}

Oracle = LlavaForConditionalGeneration | LlavaNextForConditionalGeneration | LlavaOnevisionForConditionalGeneration
Builder = Callable[..., tuple[Oracle, Path]]


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    """Makes a transformers model from changes to the tiny configuration, and the folder it saved itself to."""

    def build(
        *,
        text: dict[str, Any] | None = None,
        vision: dict[str, Any] | None = None,
        language: str = "llama",
        tower: str = "clip",
        family: str = "llava",
        **top: Any,
    ) -> tuple[Oracle, Path]:
        text_config = LANGUAGES[language](**(TEXT | EOS | (text or {})))
        vision_config = TOWERS[tower](**(VISION | (vision or {})))
        config_class, model_class = FAMILIES[family]
        config = config_class(
            text_config=text_config, vision_config=vision_config, image_token_index=IMAGE_TOKEN, **top
        )
        config._attn_implementation = "eager"
        model = model_class(config).eval()
        shake(model)
        folder = tmp_path / "hf"
        model.save_pretrained(folder)
        return model, folder

    return build


def shake(model: nn.Module) -> None:
    """Weights far from their initial values: zero biases and unit norms would hide a missing or swapped one."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        with torch.no_grad():
            weight.copy_(_scaled(name, noise))


def _scaled(name: str, noise: Tensor) -> Tensor:
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.3 * noise
    if noise.dim() < 2 or "embed" in name:
        return 0.3 * noise
    return noise / noise[0].numel() ** 0.5
