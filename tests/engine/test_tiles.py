"""The engine and pictures in tiles: as many tokens as the picture's size asks for, and nothing mistaken for another."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from PIL import Image

from llavakit.anyres import num_image_tokens
from llavakit.checkpoint.load import Loaded
from llavakit.config import TilingConfig
from llavakit.engine import reference
from llavakit.engine.engine import Engine
from llavakit.engine.sampling import SamplingParams
from llavakit.processing.conversation import Conversation

SHORT = SamplingParams(max_tokens=8)
SIZES = [(28, 28), (80, 20), (20, 80), (10, 200)]


PINPOINTS = ((28, 56), (56, 28), (56, 56), (84, 28), (28, 84))
ONEVISION = TilingConfig(pinpoints=PINPOINTS, max_tiles=2, only_alone=True)


@pytest.fixture(params=["spatial_unpad", "spatial", "flat"])
def tiled(request: pytest.FixtureRequest, make_loaded: Callable[..., Loaded]) -> Loaded:
    return make_loaded(1500, TilingConfig(pinpoints=PINPOINTS, merge=request.param))


def check_equal(loaded: Loaded, engine: Engine, conversation: Conversation) -> None:
    inputs = loaded.processor(conversation)
    expected = reference.generate(loaded.model, inputs, SHORT, tokenizer_size=loaded.tokenizer.size)
    completion = engine.generate(conversation, SHORT)
    assert list(completion.tokens) == expected
    sizes = [picture.size for picture in conversation.pictures]
    config = loaded.config.for_pictures(len(sizes))
    assert completion.image_tokens == sum(num_image_tokens(*size, config) for size in sizes)


def test_equals_the_reference_with_pictures_of_any_size_in_any_turn(
    tiled: Loaded, picture: Callable[[int], Image.Image]
) -> None:
    talk(tiled, picture)


def test_a_picture_that_is_no_longer_alone_is_seen_anew(
    make_loaded: Callable[..., Loaded], picture: Callable[[int], Image.Image]
) -> None:
    talk(make_loaded(1500, ONEVISION), picture)


def talk(tiled: Loaded, picture: Callable[[int], Image.Image]) -> None:
    chance, engine, conversation = random.Random(0), Engine(tiled), Conversation()
    for turn in range(5):
        pictures = [picture(chance.randint(0, 3)).resize(chance.choice(SIZES)) for _ in range(turn % 3)]
        conversation = conversation.ask(*pictures, "what is it?")
        check_equal(tiled, engine, conversation)
        conversation = conversation.answer("it is")


def test_equal_tiles_of_another_size_are_another_picture(tiled: Loaded) -> None:
    """Black pictures on black canvases: the views are the same, what is left of them is not."""
    engine = Engine(tiled)
    views = [tiled.processor.pixels(Image.new("RGB", size)) for size in ((56, 28), (56, 14))]
    assert torch.equal(*views)
    for size in ((56, 28), (56, 14), (56, 28)):
        check_equal(tiled, engine, Conversation().ask(Image.new("RGB", size), "what is it?"))


def test_each_picture_is_encoded_once_and_alone(tiled: Loaded, picture: Callable[[int], Image.Image]) -> None:
    seen: list[int] = []
    hook = tiled.model.vision.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    engine, one, other = Engine(tiled), picture(0).resize((56, 56)), picture(1).resize((80, 20))
    engine.generate(Conversation().ask(one, other, "what?"), SHORT)
    engine.generate(Conversation().ask(other, one, "what?"), SHORT)
    hook.remove()
    assert seen == [5, 4]
