"""Tiny random models that can be talked with."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from llavakit.checkpoint.load import Loaded
from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, TilingConfig, VisionConfig
from llavakit.engine.answering import Request
from llavakit.engine.engine import Engine
from llavakit.engine.sampling import SamplingParams
from llavakit.model import Llava
from llavakit.processing.conversation import Conversation
from llavakit.processing.templates import TEMPLATES
from llavakit.processing.tokenizer import Tokenizer, train_tokenizer

settings.register_profile("engine", deadline=None)  # a busy machine is no failure
settings.load_profile("engine")

Asked = tuple[Conversation, SamplingParams, Request]
NUM_UNSPELLABLE = 12  # rows of the vocabulary behind the tokenizer's, as in padded checkpoints


@cache
def tiny_tokenizer() -> Tokenizer:
    system = TEMPLATES["vicuna_v1"].system
    assert system is not None
    return train_tokenizer([system] * 20, 330)


def tiny_model(max_positions: int, tiling: TilingConfig | None) -> Llava:
    """Random, but lively: its answers vary, sometimes end, and would often hold ids that no answer may hold."""
    tokenizer = tiny_tokenizer()
    config = LlavaConfig(
        vision=VisionConfig(
            image_size=28, patch_size=14, hidden_size=16, intermediate_size=32, num_layers=3, num_heads=2
        ),
        language=LanguageConfig(
            vocab_size=tokenizer.size + NUM_UNSPELLABLE,
            hidden_size=32,
            intermediate_size=48,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            head_dim=8,
            max_positions=max_positions,
        ),
        tokens=SpecialTokens(pad=0, bos=1, eos=2, image=3),
        resize_mode="anyres" if tiling else "pad",
        tiling=tiling,
    )
    torch.manual_seed(0)
    model = Llava(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            weight.normal_(std=(3 if "lm_head" in name else 1.25) / weight[0].numel() ** 0.5)
    model.language.embed_tokens.weight.normal_()
    if model.image_newline is not None:
        model.image_newline.normal_()
    head = model.language.output_weight
    head[[config.tokens.eos, config.tokens.image]] *= 2
    head[tokenizer.size :] *= 2
    return model


@pytest.fixture(scope="session")
def make_loaded() -> Callable[..., Loaded]:
    """Makes a tiny model with a context of `max_positions` tokens; with `tiling` it sees pictures in tiles."""

    @cache
    def make(max_positions: int = 600, tiling: TilingConfig | None = None) -> Loaded:
        model = tiny_model(max_positions, tiling)
        return Loaded(model=model, tokenizer=tiny_tokenizer(), config=model.config, name="tiny")

    return make


@pytest.fixture(scope="session")
def chatml(make_loaded: Callable[..., Loaded]) -> Loaded:
    """The tiny model with ChatML's two markers in its vocabulary; it likes to end its answers with one."""
    plain = make_loaded()
    spec = json.loads(plain.tokenizer.__reduce__()[1][0])
    start = plain.tokenizer.size
    markers = [
        {**spec["added_tokens"][0], "id": start + at, "content": f"<|im_{name}|>"}
        for at, name in enumerate(("start", "end"))
    ]
    spec["added_tokens"] += markers
    tokenizer = Tokenizer(json.dumps(spec), plain.tokenizer.tokens)
    config = plain.config.model_copy(update={"template": "chatml_direct"})
    model = deepcopy(plain.model)
    model.language.output_weight[start + 1] *= 2
    return Loaded(model=model, tokenizer=tokenizer, config=config, name="chatml")


@pytest.fixture
def loaded(make_loaded: Callable[..., Loaded]) -> Loaded:
    return make_loaded()


@pytest.fixture
def picture() -> Callable[[int], Image.Image]:
    """Draws a picture of random pixels: another number, another picture."""

    def draw(number: int) -> Image.Image:
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number % 3 * 10, 30, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    return draw


@pytest.fixture
def ask_a_mix(picture: Callable[[int], Image.Image]) -> Callable[..., list[Asked]]:
    """Ask an engine this and that while it works; with `aborts` some are given up again and not told of."""

    def ask(engine: Engine, chance: random.Random, *, aborts: bool = False) -> list[Asked]:
        asked = []
        for number in range(14):
            conversation = Conversation()
            for turn in range(chance.choice([1, 1, 2])):
                pictures = [picture(chance.randint(0, 2)) for _ in range(chance.choice([0, 1, 2]))]
                words = chance.choice(["what?", "how many things are in the picture?"])
                conversation = (conversation.answer("it is") if turn else conversation).ask(*pictures, words)
            params = SamplingParams(max_tokens=chance.randint(1, 12), draft_tokens=chance.choice([0, 3]))
            asked.append((conversation, params, engine.submit(conversation, params)))
            for _ in range(chance.choice([0, 3, 12])):
                engine.step()
            if aborts and number % 5 == 4 and not asked[-1][2].is_over:
                engine.abort(asked.pop()[2])
        while not engine.is_idle:
            engine.step()
            engine.check_integrity()
        return asked

    return ask
