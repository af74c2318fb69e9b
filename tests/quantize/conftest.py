"""A model whose widths no group divides evenly, small enough to be multiplied in no time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig
from llavakit.model import Images, Llava


def config(*, tied: bool) -> LlavaConfig:
    return LlavaConfig(
        vision=VisionConfig(
            image_size=28, patch_size=14, hidden_size=48, intermediate_size=80, num_layers=2, num_heads=2
        ),
        language=LanguageConfig(
            vocab_size=99,
            hidden_size=96,
            intermediate_size=168,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            head_dim=24,
            max_positions=64,
            tie_embeddings=tied,
            qkv_bias=True,
        ),
        tokens=SpecialTokens(pad=0, bos=1, eos=2, image=3),
    )


@pytest.fixture(params=[False, True], ids=["own head", "tied head"])
def model(request: pytest.FixtureRequest) -> Llava:
    generator = torch.Generator().manual_seed(0)
    made = Llava(config(tied=request.param))
    for name, weight in made.named_parameters():
        if "norm" in name and name.endswith("weight"):
            torch.nn.init.ones_(weight)
        else:
            torch.nn.init.normal_(weight, std=0.1, generator=generator)
    return made.eval()


@pytest.fixture(scope="session")
def look() -> Callable[[Llava], torch.Tensor]:
    """The logits of a picture and some words."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(1, 3, 28, 28, generator=generator)
    tokens = torch.tensor([[1, 3, 3, 3, 3, 40, 41, 42, 43, 44, 45]])

    @torch.inference_mode()
    def logits(model: Llava) -> torch.Tensor:
        hidden = model(tokens, Images(pixels=pixels), torch.arange(tokens.shape[1])[None])
        return model.language.logits(hidden)[0]

    return logits
