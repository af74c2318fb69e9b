"""Samples as users bring them, and a model's processor small enough to read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig
from llavakit.processing import Processor, train_tokenizer

CONFIG = LlavaConfig(
    vision=VisionConfig(image_size=14, patch_size=7, hidden_size=8, intermediate_size=8, num_layers=2, num_heads=2),
    language=LanguageConfig(vocab_size=270, hidden_size=8, num_heads=2, num_kv_heads=2, head_dim=4),
    tokens=SpecialTokens(pad=0, bos=1, eos=2, image=3),
)


@pytest.fixture(scope="session")
def processor() -> Processor:
    return Processor(CONFIG, train_tokenizer(["what is it"], CONFIG.language.vocab_size))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes samples, and beside them the picture a.png."""
    Image.new("RGB", (9, 5), "red").save(tmp_path / "a.png")

    def write(*samples: Any, name: str = "samples.json") -> Path:
        lines = [json.dumps(sample, ensure_ascii=False) for sample in samples]
        text = "\n".join(lines) if name.endswith("jsonl") else f"[{', '.join(lines)}]"
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write
