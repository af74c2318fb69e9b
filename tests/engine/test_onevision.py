"""LLaVA-OneVision from its folder to its answers, as transformers gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    Qwen2Config,
    SiglipVisionConfig,
)

from llavakit.checkpoint.load import Loaded, load
from llavakit.config import SIGLIP_MEAN, SIGLIP_STD
from llavakit.engine.engine import Engine
from llavakit.engine.sampling import SamplingParams, forbidden_tokens
from llavakit.processing import Conversation, train_tokenizer

PINPOINTS = [[28, 28], [28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
ENDS = [2, 90]
Oracle = tuple[LlavaOnevisionForConditionalGeneration, LlavaOnevisionImageProcessorPil]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Oracle, Loaded]:
    """A tiny random model with all its files, as transformers saves them, and as we load them."""
    folder = tmp_path_factory.mktemp("onevision")
    tokenizer = train_tokenizer(["<|im_start|>user\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"] * 9, 300)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": 320, "num_key_value_heads": 2, "max_position_embeddings": 1024, "bos_token_id": 1}
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**sizes, image_size=28, patch_size=7, vision_use_head=False),
        text_config=Qwen2Config(**sizes, **text, eos_token_id=2, pad_token_id=0),
        image_token_index=3,
        video_token_index=4,
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio="anyres_max_2",
    )
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.3 * noise if weight.dim() < 2 else 1.5 * noise / weight[0].numel() ** 0.5)
    model.generation_config.eos_token_id = ENDS
    processor = LlavaOnevisionImageProcessorPil(
        size={"height": 28, "width": 28}, image_grid_pinpoints=PINPOINTS, image_mean=SIGLIP_MEAN, image_std=SIGLIP_STD
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")
    return (model, processor), load(folder)


def test_what_is_read(both: tuple[Oracle, Loaded]) -> None:
    config = both[1].config
    assert (config.tokens.ends, config.tokens.bos, config.tokens.image) == ((2, 90), None, 3)
    assert (config.template, config.resize_mode, config.tiling.max_tiles) == ("qwen_1_5", "anyres", 2)


@pytest.mark.parametrize("sizes", [[(60, 60)], [(40, 90)], [(11, 17)], [(200, 30)], [(60, 60), (40, 90)]])
def test_answers_equal_those_of_transformers(
    sizes: list[tuple[int, int]], both: tuple[Oracle, Loaded], compared: Any
) -> None:
    (oracle, processor), loaded = both
    chance = np.random.default_rng(len(sizes) * sizes[0][0])
    pictures = [Image.fromarray(chance.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    conversation = Conversation().ask(*pictures, "What is it?")
    prompt = loaded.processor(conversation).tokens
    seen = processor([pictures], return_tensors="pt")
    theirs = oracle.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        **seen,
        max_new_tokens=16,
        do_sample=False,
        suppress_tokens=forbidden_tokens(loaded.config, loaded.tokenizer.size).nonzero().flatten().tolist(),
    )[0, len(prompt) :].tolist()
    if theirs[-1] in ENDS:
        theirs.pop()
    ours = list(Engine(loaded).generate(conversation, SamplingParams(max_tokens=16)).tokens)
    several = "several pictures" if len(sizes) > 1 else "one picture"
    about = {"subject": f"LLaVA-OneVision, {several}", "oracle": "transformers as installed"}
    compared.equal(ours, theirs, stage="greedy ids", **about)
