"""The engine and fewer visual tokens: equal to the reference, and to the whole model where nothing is left out."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import copy

import pytest
import torch
from PIL import Image

from llavakit.anyres import num_image_tokens, token_positions
from llavakit.checkpoint.load import Loaded
from llavakit.config import TilingConfig, VisualTokens
from llavakit.engine import reference
from llavakit.engine.engine import Engine
from llavakit.engine.image_cache import picture_digest
from llavakit.engine.sampling import SamplingParams
from llavakit.model import Images
from llavakit.processing.conversation import Conversation

Draw = Callable[[int], Image.Image]
SHORT = SamplingParams(max_tokens=8)
PINPOINTS = ((28, 56), (56, 28), (56, 56))
SETTINGS = [(1, "attention"), (3, "attention"), (1, "pool"), (4, "attention"), (4, "pool")]


def fewer(loaded: Loaded, count: int, method: str) -> Loaded:
    """The same model with another setting."""
    model = copy(loaded.model)
    model.config = loaded.config.with_visual_tokens(VisualTokens(count=count, method=method))
    return Loaded(model=model, tokenizer=loaded.tokenizer, config=model.config, name="fewer")


def talk(loaded: Loaded, picture: Draw, engine: Engine) -> list[tuple[int, ...]]:
    """Several turns, some with pictures, all equal to the reference; returns the answers."""
    chance, conversation, answers = random.Random(1), Conversation(), []
    for turn in range(4):
        pictures = [picture(chance.randint(0, 3)) for _ in range(turn % 3)]
        conversation = conversation.ask(*pictures, "what is it?")
        inputs = loaded.processor(conversation)
        expected = reference.generate(loaded.model, inputs, SHORT, tokenizer_size=loaded.tokenizer.size)
        completion = engine.generate(conversation, SHORT)
        assert list(completion.tokens) == expected
        config = loaded.config.for_pictures(len(inputs.sizes))
        assert completion.image_tokens == sum(num_image_tokens(*size, config) for size in inputs.sizes)
        answers.append(completion.tokens)
        conversation = conversation.answer(completion.text)
    return answers


@pytest.mark.parametrize(("count", "method"), SETTINGS)
@pytest.mark.parametrize("merge", [None, "flat", "spatial", "spatial_unpad"])
def test_the_engine_equals_the_reference(
    make_loaded: Callable[..., Loaded], picture: Draw, count: int, method: str, merge: str | None
) -> None:
    tiling = TilingConfig(pinpoints=PINPOINTS, merge=merge) if merge else None
    loaded = fewer(make_loaded(1500, tiling), count, method)
    talk(loaded, picture, Engine(loaded))


@pytest.mark.parametrize("method", ["attention", "pool"])
@pytest.mark.parametrize("merge", [None, "flat"])
def test_all_tokens_answer_as_the_whole_model(
    make_loaded: Callable[..., Loaded], picture: Draw, method: str, merge: str | None
) -> None:
    whole = make_loaded(1500, TilingConfig(pinpoints=PINPOINTS, merge=merge) if merge else None)
    everything = fewer(whole, 4, method)
    assert talk(everything, picture, Engine(everything)) == talk(whole, picture, Engine(whole))
    inputs = whole.processor(Conversation().ask(picture(0), "what?"))
    row, images = torch.tensor([inputs.tokens]), Images(pixels=inputs.pixels, sizes=inputs.sizes)
    hidden = [
        one.model(row, images, torch.tensor([token_positions(row.shape[1], inputs.spans, one.config)]))
        for one in (everything, whole)
    ]
    assert torch.equal(*hidden)


@pytest.mark.parametrize(("count", "method"), SETTINGS)
def test_as_many_vectors_as_are_counted(
    make_loaded: Callable[..., Loaded], picture: Draw, count: int, method: str
) -> None:
    for tiling in (None, TilingConfig(pinpoints=PINPOINTS)):
        loaded = fewer(make_loaded(1500, tiling), count, method)
        for size in ((28, 28), (90, 20), (20, 90), (300, 7)):
            pixels = loaded.processor.pixels(picture(0).resize(size))
            embeds = loaded.model.encode_images(Images(pixels=pixels, sizes=[size]))
            assert len(embeds) == num_image_tokens(*size, loaded.config)


def test_a_kept_patch_stands_where_it_stood(loaded: Loaded, picture: Draw) -> None:
    """The model is asked for the very positions that whole pictures would give the same features."""
    some = fewer(loaded, 2, "attention")
    inputs = some.processor(Conversation().ask(picture(0), picture(1), "what?"))
    seen: list[torch.Tensor] = []
    hook = some.model.language.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    images = Images(pixels=inputs.pixels, sizes=inputs.sizes)
    given = token_positions(len(inputs.tokens), inputs.spans, some.config)
    some.model(torch.tensor([inputs.tokens]), images, torch.tensor([given]))
    hook.remove()
    whole = loaded.processor(Conversation().ask(picture(0), picture(1), "what?"))
    patches = {at for span in whole.spans for at in range(*span)}
    places = some.model.see(inputs.pixels).places.tolist()
    kept = {start + place for (start, _), view in zip(whole.spans, places, strict=True) for place in view}
    expected = [at for at in range(len(whole.tokens)) if at not in patches or at in kept]
    assert seen[0][0].tolist() == expected


def test_a_prompt_is_as_long_as_its_positions(make_loaded: Callable[..., Loaded], picture: Draw) -> None:
    asked = Conversation().ask(picture(0), "what is it?")
    length = len(make_loaded().processor(asked).tokens)
    with pytest.raises(ValueError, match=f"{length} tokens long \\(4 of them"):
        Engine(fewer(make_loaded(length), 1, "attention")).stream(asked, SHORT)
    tight = fewer(make_loaded(length + 3), 1, "attention")
    expected = reference.generate(tight.model, tight.processor(asked), SHORT, tokenizer_size=tight.tokenizer.size)
    assert list(Engine(tight).generate(asked, SHORT).tokens) == expected and len(expected) <= 3


def test_a_setting_is_part_of_a_picture_s_name() -> None:
    pixels = torch.rand(1, 3, 4, 4)
    settings = [None, *(VisualTokens(count=count, method=method) for count, method in SETTINGS)]
    assert len({picture_digest(pixels, (5, 4), setting) for setting in settings}) == len(settings)
