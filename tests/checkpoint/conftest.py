"""A model small enough to write a hundred times, and its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llavakit.checkpoint.save import save
from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig
from llavakit.model import Llava
from llavakit.processing.tokenizer import Tokenizer, train_tokenizer

CONFIG = LlavaConfig(
    vision=VisionConfig(image_size=14, patch_size=7, hidden_size=8, intermediate_size=12, num_layers=3, num_heads=2),
    language=LanguageConfig(
        vocab_size=264,
        hidden_size=8,
        intermediate_size=12,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        max_positions=32,
    ),
    tokens=SpecialTokens(pad=0, bos=1, eos=2, image=3),
    resize_mode="square",
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a cat sat on a mat"], 264)


@pytest.fixture
def model() -> Llava:
    return random_model(CONFIG)


@pytest.fixture
def folder(model: Llava, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """The model's native folder."""
    save(model, tokenizer, tmp_path / "tiny")
    return tmp_path / "tiny"


def random_model(config: LlavaConfig, seed: int = 0) -> Llava:
    generator = torch.Generator().manual_seed(seed)
    model = Llava(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, generator=generator)
    return model.eval()
