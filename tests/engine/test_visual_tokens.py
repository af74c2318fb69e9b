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
from llavakit.engine.runner import TorchRunner
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


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_any_mix_of_requests_equals_the_reference(
    loaded: Loaded, ask_a_mix: Callable[..., list], seed: int, together: bool
) -> None:
    """Blocks are shared, copied and used again by others, and prompts cut in the middle of pictures."""
    chance, some = random.Random(seed), fewer(loaded, 2, "attention")
    engine = Engine(
        some,
        runner=TorchRunner(some.model, together=together),
        max_sequences=3,
        token_budget=chance.choice([7, 40]),
        cache_tokens=300,
    )
    for conversation, params, request in ask_a_mix(engine, chance):
        inputs = some.processor(conversation)
        expected = reference.generate(some.model, inputs, params, tokenizer_size=some.tokenizer.size)
        assert list(request.completion.tokens) == expected


def test_a_picture_counts_for_all_its_patches_also_when_it_is_kept(loaded: Loaded, picture: Draw) -> None:
    """A second question finds keys, values and what counts for how many, and gives the same scores as without."""
    some, params = fewer(loaded, 1, "attention"), SamplingParams(max_tokens=4, logprobs=3)
    first, second = (Conversation().ask(picture(0), words) for words in ("what?", "how many things are in it?"))
    engine = Engine(some)
    engine.generate(first, params)
    again, anew = engine.generate(second, params), Engine(some).generate(second, params)
    assert again.timings.cached_tokens > some.processor(second).spans[0][1] and not anew.timings.cached_tokens
    for one, other in zip(again.logprobs, anew.logprobs, strict=True):
        assert one.token == other.token and one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_without_fewer_tokens_nothing_is_added(loaded: Loaded, picture: Draw) -> None:
    runner = TorchRunner(loaded.model)
    Engine(loaded, runner=runner).generate(Conversation().ask(picture(0), "what?"), SHORT)
    assert runner._storage.bias is None
    inputs = loaded.processor(Conversation().ask(picture(0), "what?"))
    assert loaded.model.see(inputs.pixels).fewer is None
    mass = fewer(loaded, 3, "attention").model.see(inputs.pixels).fewer.bias.exp()
    assert mass.sum().item() == pytest.approx(4) and mass.max() > 1.5


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
    places = some.model.see(inputs.pixels).fewer.places.tolist()
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
