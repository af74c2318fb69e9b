"""Tiny models of every kind, as native folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from llavakit.checkpoint.save import save
from llavakit.config import LlavaConfig
from llavakit.model import Llava
from llavakit.processing import Tokenizer, train_tokenizer

VISION = {"image_size": 28, "patch_size": 7, "hidden_size": 16, "intermediate_size": 24, "num_layers": 3}
LANGUAGE = {"hidden_size": 24, "intermediate_size": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4}
# The second and third tie, so that their order matters.
PINPOINTS = [(28, 56), (56, 28), (56, 56), (84, 28), (28, 84)]
TILED = {"resize_mode": "anyres", "tiling": {"pinpoints": PINPOINTS}}
SIGLIP = {
    "vision": {
        "class_token": False, "pre_norm": False, "patch_bias": True, "activation": "gelu_tanh", "image_size": 30,
        "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5),
    }
}  # fmt: skip
TEXTS = ["A chat between a curious user and an assistant. USER: What is it? ASSISTANT: It is a red circle."]

Maker = Callable[..., Path]


@pytest.fixture(scope="session")
def words() -> Tokenizer:
    return train_tokenizer(TEXTS, 300)


@pytest.fixture
def make(tmp_path: Path, words: Tokenizer) -> Maker:
    """Writes a native folder: a tiny model that differs from the plain one as said, its weights at random."""

    def make(
        *,
        vision: dict[str, Any] | None = None,
        language: dict[str, Any] | None = None,
        tokens: dict[str, Any] | None = None,
        tokenizer: Tokenizer | None = None,
        dtype: torch.dtype = torch.float32,
        **top: Any,
    ) -> Path:
        tokenizer = tokenizer or words
        sizes = {"vocab_size": tokenizer.size, "head_dim": 6, "max_positions": 512, "rms_norm_eps": 1e-5}
        config = LlavaConfig.parse(
            {
                "vision": VISION | {"num_heads": 2} | (vision or {}),
                "language": LANGUAGE | sizes | (language or {}),
                "tokens": {"pad": 0, "bos": 1, "eos": 2, "image": 3} | (tokens or {}),
                **top,
            }
        )
        folder = tmp_path / "native"
        save(random_model(config), tokenizer, folder, dtype=dtype)
        return folder

    return make


def random_model(config: LlavaConfig) -> Llava:
    """Weights that make a missing or swapped one show: no zero biases, no unit norms."""
    generator = torch.Generator().manual_seed(0)
    model = Llava(config)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        with torch.no_grad():
            weight.copy_(1 + 0.3 * noise if "norm" in name and name.endswith("weight") else scaled(noise))
    return model.eval()


def scaled(noise: torch.Tensor) -> torch.Tensor:
    return 0.3 * noise if noise.dim() < 2 else noise / noise[0].numel() ** 0.5


@pytest.fixture(scope="session")
def drawings() -> list[Image.Image]:
    """Pictures of several shapes, larger and smaller than a tile."""
    drawn = []
    for size in ((90, 40), (20, 17), (33, 120)):
        image = Image.new("RGB", size, "white")
        ImageDraw.Draw(image).ellipse((3, 3, size[0] // 2, size[1] - 4), fill="red")
        ImageDraw.Draw(image).line((0, 0, *size), fill="blue", width=3)
        drawn.append(image)
    return drawn
