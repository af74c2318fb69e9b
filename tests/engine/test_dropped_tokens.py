"""The engine and visual tokens dropped inside the language model: equal to the reference, whatever is shared."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import copy

import pytest
import torch
from PIL import Image

from llavakit.anyres import PartlyKept, num_image_tokens, num_views, partly_kept
from llavakit.checkpoint.load import Loaded
from llavakit.config import TilingConfig, VisualTokens
from llavakit.engine import reference
from llavakit.engine.engine import Engine
from llavakit.engine.runner import TorchRunner
from llavakit.engine.sampling import SamplingParams
from llavakit.model import language
from llavakit.model.drop import staying
from llavakit.processing.conversation import Conversation

Draw = Callable[[int], Image.Image]
SHORT = SamplingParams(max_tokens=8)
PINPOINTS = ((28, 56), (56, 28), (56, 56))


def dropping(loaded: Loaded, count: int, after_layer: int = 1) -> Loaded:
    """The same model, of whose visual tokens so many stay."""
    model = copy(loaded.model)
    model.config = loaded.config.with_visual_tokens(VisualTokens(count=count, after_layer=after_layer))
    return Loaded(model=model, tokenizer=loaded.tokenizer, config=model.config, name="dropping")


def expected(loaded: Loaded, asked: Conversation, params: SamplingParams) -> list[int]:
    return reference.generate(loaded.model, loaded.processor(asked), params, tokenizer_size=loaded.tokenizer.size)


def talk(loaded: Loaded, picture: Draw, engine: Engine) -> list[tuple[int, ...]]:
    """Several turns, some with pictures, of which each new question chooses anew; returns the answers."""
    chance, conversation, answers = random.Random(1), Conversation(), []
    for turn in range(4):
        pictures = [picture(chance.randint(0, 3)) for _ in range(turn % 3)]
        conversation = conversation.ask(*pictures, "what is it?")
        completion = engine.generate(conversation, SHORT)
        assert list(completion.tokens) == expected(loaded, conversation, SHORT)
        answers.append(completion.tokens)
        conversation = conversation.answer(completion.text)
    return answers


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("merge", [None, "flat", "spatial", "spatial_unpad"])
def test_the_engine_equals_the_reference(
    make_loaded: Callable[..., Loaded], picture: Draw, count: int, merge: str | None
) -> None:
    whole = make_loaded(1500, TilingConfig(pinpoints=PINPOINTS, merge=merge) if merge else None)
    some = dropping(whole, count)
    answers = talk(some, picture, Engine(some))
    if count == 1:
        assert answers != talk(whole, picture, Engine(whole))
    if count == 4 and merge != "spatial_unpad":  # there newlines count too
        assert answers == talk(whole, picture, Engine(whole))


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_any_mix_of_requests_equals_the_reference(
    loaded: Loaded, ask_a_mix: Callable[..., list], seed: int, together: bool
) -> None:
    """Beginnings are shared and copied, blocks used again by others, drafts verified, some requests aborted."""
    chance, some = random.Random(seed), dropping(loaded, 1 + seed % 2)
    engine = Engine(
        some,
        runner=TorchRunner(some.model, together=together),
        max_sequences=3,
        token_budget=chance.choice([7, 40]),
        cache_tokens=300,
    )
    for conversation, params, request in ask_a_mix(engine, chance, aborts=True):
        assert list(request.completion.tokens) == expected(some, conversation, params)


def test_a_prompt_is_found_again_up_to_its_first_picture(loaded: Loaded, picture: Draw) -> None:
    """What comes behind is computed anew, and gives the same scores."""
    some, params = dropping(loaded, 2), SamplingParams(max_tokens=4, logprobs=3)
    asked = [Conversation().ask(picture(0), words) for words in ("what?", "how many things are in it?")]
    engine, first = Engine(some), some.processor(asked[0]).spans[0][0]
    once, second, again = (engine.generate(question, params) for question in (*asked, asked[0]))
    assert [one.timings.cached_tokens for one in (once, second, again)] == [0, first, first]
    assert list(second.tokens) == expected(some, asked[1], params)
    for one, other in zip(once.logprobs, again.logprobs, strict=True):
        assert one.token == other.token and one.logprob == pytest.approx(other.logprob, abs=1e-5)
    text = Conversation().ask("how many things are in it?")
    assert engine.generate(text, params).tokens == Engine(loaded).generate(text, params).tokens


def test_later_layers_keep_fewer_keys_in_the_same_blocks(loaded: Loaded, picture: Draw) -> None:
    some = dropping(loaded, 1)
    runner, asked = TorchRunner(some.model), Conversation().ask(picture(0), "what?", picture(1), "and?")
    completion = Engine(some, runner=runner).generate(asked, SHORT)
    written = [int(layer.abs().sum((0, 2)).count_nonzero()) for layer in runner._storage.keys]
    number = len(completion.prompt_tokens) + len(completion.tokens)
    assert written[0] - written[1] == 6 and written[0] in (number - 1, number)


def test_a_choice_depends_on_the_question(loaded: Loaded, picture: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or nothing would have to be computed anew."""
    some, chosen = dropping(loaded, 1), set()

    def watched(attention: torch.Tensor, pictures: list[PartlyKept]) -> torch.Tensor:
        stay, [(first, end, _)] = staying(attention, pictures), pictures
        chosen.update(set(stay.tolist()) & set(range(first, end)))
        return stay

    monkeypatch.setattr(language, "staying", watched)
    for words in ("what?", "how many things are in it?", "Is it?", "Why?", "the picture a man"):
        Engine(some).generate(Conversation().ask(picture(0), words), SamplingParams(max_tokens=1))
    assert len(chosen) > 1


def test_how_many_stay_of_several_pictures(make_loaded: Callable[..., Loaded], picture: Draw) -> None:
    some = dropping(make_loaded(1500, TilingConfig(pinpoints=PINPOINTS)), 2)
    inputs = some.processor(Conversation().ask(picture(0), picture(1).resize((60, 4)), "what?"))
    kept = partly_kept(inputs.spans, inputs.sizes, some.config)
    assert [span[:2] for span in kept] == inputs.spans
    counts = [(num_image_tokens(*size, some.config), num_views(*size, some.config)) for size in inputs.sizes]
    assert [count for *_, count in kept] == [min(all_tokens, 2 * views) for all_tokens, views in counts]
    assert partly_kept(inputs.spans, inputs.sizes, some.config.with_visual_tokens(None)) == []
