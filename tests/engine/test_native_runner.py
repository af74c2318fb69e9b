"""What native steps answer is the same alone and beside others, in one piece and in chunks: to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy

import pytest
import torch
from PIL import Image

from llavakit.checkpoint.load import Loaded, load
from llavakit.config import VisualTokens
from llavakit.engine import reference
from llavakit.engine.engine import Engine
from llavakit.engine.native_runner import NativeRunner
from llavakit.engine.request import Completion
from llavakit.engine.runner import Span, TorchRunner
from llavakit.engine.sampling import SamplingParams
from llavakit.kernels import native
from llavakit.kernels.graph import KeysValues
from llavakit.model import Llava
from llavakit.processing.conversation import Conversation
from llavakit.quantize.apply import quantize_model
from llavakit.quantize.native import native_kind, native_tower_kind
from llavakit.quantize.schemes import SCHEMES

pytestmark = pytest.mark.skipif(native is None, reason="the native kernels are not built")


@pytest.fixture(scope="module", params=["floats", "int8", "int4-g32"])
def small(request: pytest.FixtureRequest) -> Loaded:
    loaded = load("pocket")
    if request.param != "floats":
        quantize_model(loaded.model, SCHEMES[request.param])
    return loaded


def native_runner(loaded: Loaded) -> NativeRunner:
    kind = native_kind(loaded.model)
    assert kind is not None
    return NativeRunner(loaded.model, kind)


def requests(picture: Callable[[int], Image.Image]) -> Iterator[tuple[Conversation, SamplingParams]]:
    """Long and short, greedy and drawn, with and without pictures and drafts."""
    first = Conversation().ask(picture(0), "What is in the picture?")
    yield first, SamplingParams(max_tokens=30)
    yield first, SamplingParams(max_tokens=30, draft_tokens=4)
    yield Conversation().ask(picture(1), "How many things are there?"), SamplingParams(max_tokens=20)
    yield Conversation().ask("Hello?"), SamplingParams(max_tokens=25, temperature=1.0, seed=5, logprobs=2)
    yield first.answer("A cat.").ask("Are you sure?"), SamplingParams(max_tokens=12, temperature=0.7, seed=1)


def check_together(engine: Engine, asked: list[tuple[Conversation, SamplingParams]], alone: list[Completion]) -> None:
    """All at once they are answered as each was alone."""
    together = [engine.submit(*each) for each in asked]
    while not engine.is_idle:
        engine.step()
    engine.check_integrity()
    for one, many in zip(alone, together, strict=True):
        assert many.completion is not None
        assert many.completion.tokens == one.tokens and many.completion.logprobs == one.logprobs


def test_many_are_answered_as_each_alone(small: Loaded, picture: Callable[[int], Image.Image]) -> None:
    alone = [Engine(small).generate(asked, params) for asked, params in requests(picture)]
    for budget in (4096, 24):
        engine = Engine(small, cache_tokens=4096, token_budget=budget)
        check_together(engine, list(requests(picture)), alone)
    assert alone[0].tokens == alone[1].tokens  # drafts change nothing


def test_scores_are_nearly_those_of_the_modules(small: Loaded, picture: Callable[[int], Image.Image]) -> None:
    inputs = small.processor(Conversation().ask(picture(0), "What is in the picture?"))
    found = []
    for runner in (native_runner(small), TorchRunner(small.model)):
        embeds = runner.encode(inputs.pixels, inputs.sizes[0]).embeds
        found += runner.step([Span(inputs.tokens, 0, range(len(inputs.tokens) // 16 + 1), embeds)])
    assert (found[0] - found[1]).norm() < 0.03 * found[1].norm()
    assert torch.equal(found[0].argmax(-1), found[1].argmax(-1))


@pytest.mark.parametrize("bias", [None, [0.2 * at for at in range(40)]])
def test_blocks_may_lie_anywhere_and_be_copied(small: Loaded, bias: list[float] | None) -> None:
    runner = native_runner(small)
    tokens = list(range(10, 50))
    whole = runner.step([Span(tokens, 0, [0, 1, 2], bias=bias and [*bias[:32], *[0.0] * 8])])[0]
    # In more blocks than there was room for.
    runner.step([Span(tokens[:32], 0, [90, 7, 200], num_logits=0, bias=bias and bias[:32])])
    runner.copy(7, 300)
    assert torch.equal(runner.step([Span(tokens[32:], 32, [90, 300, 5])])[0], whole)


def test_unquantised_it_says_what_torch_says(picture: Callable[[int], Image.Image]) -> None:
    """Only sums in another order, and keys and values of 16 bits."""
    loaded = load("pocket")
    inputs = loaded.processor(Conversation().ask(picture(0), "What is in the picture?"))
    found = []
    for runner in (native_runner(loaded), TorchRunner(loaded.model)):
        embeds = runner.encode(inputs.pixels, inputs.sizes[0]).embeds
        blocks = range(len(inputs.tokens) // 16 + 1)
        found.append(runner.step([Span(inputs.tokens, 0, blocks, embeds, num_logits=len(inputs.tokens))])[0])
    assert (found[0] - found[1]).abs().max() < 1e-3 * found[1].abs().max()
    for asked, params in requests(picture):
        alike = [
            Engine(loaded, runner=runner).generate(asked, params).tokens for runner in (None, TorchRunner(loaded.model))
        ]
        assert alike[0] == alike[1]


def fewer(loaded: Loaded, count: int, method: str = "attention") -> Loaded:
    model = copy(loaded.model)
    model.config = loaded.config.with_visual_tokens(VisualTokens(count=count, method=method))
    return Loaded(model=model, tokenizer=loaded.tokenizer, config=model.config, name="fewer")


def test_fewer_visual_tokens_count_for_all(small: Loaded, picture: Callable[[int], Image.Image]) -> None:
    """Alone and beside others the same, in chunks and from blocks that are kept, copied or were somebody else's."""
    some = fewer(small, 16)
    alone = [Engine(some).generate(asked, params) for asked, params in requests(picture)]
    for budget in (4096, 24):
        engine = Engine(some, cache_tokens=640, max_sequences=3, token_budget=budget)
        for _ in range(2):
            together = [engine.submit(asked, params) for asked, params in requests(picture)]
            while not engine.is_idle:
                engine.step()
            for one, many in zip(alone, together, strict=True):
                assert many.completion is not None
                assert many.completion.tokens == one.tokens and many.completion.logprobs == one.logprobs
        assert engine._runner._bias.max() > 1


@pytest.mark.parametrize("method", ["attention", "pool"])
def test_fewer_visual_tokens_are_seen_as_torch_sees_them(picture: Callable[[int], Image.Image], method: str) -> None:
    some = fewer(load("pocket"), 16, method)
    pixels = some.processor.pixels(picture(0))
    ours, theirs = (runner.encode(pixels, (30, 20)) for runner in (native_runner(some), TorchRunner(some.model)))
    assert ours.places == theirs.places and ours.bias == theirs.bias
    torch.testing.assert_close(ours.embeds, theirs.embeds, atol=5e-3 * float(theirs.embeds.abs().max()), rtol=0)


def test_fewer_visual_tokens_say_what_torch_says(picture: Callable[[int], Image.Image]) -> None:
    some = fewer(load("pocket"), 16)
    inputs = some.processor(Conversation().ask(picture(0), "What is in the picture?"))
    scores = []
    for runner in (native_runner(some), TorchRunner(some.model)):
        seen = runner.encode(inputs.pixels, inputs.sizes[0])
        (start, end), number = inputs.spans[0], len(inputs.tokens)
        bias = [0.0] * start + list(seen.bias) + [0.0] * (number - end)
        blocks = range(number // 16 + 1)
        for given in (bias, None):
            scores.append(runner.step([Span(inputs.tokens, 0, blocks, seen.embeds, number, bias=given)])[0])
    limit = 1e-3 * scores[2].abs().max()
    assert (scores[0] - scores[2]).abs().max() < limit and (scores[1] - scores[3]).abs().max() < limit
    assert (scores[0] - scores[1]).abs().max() > 100 * limit


def dropping(loaded: Loaded, count: int, after_layer: int) -> Loaded:
    model = copy(loaded.model)
    model.config = loaded.config.with_visual_tokens(VisualTokens(count=count, after_layer=after_layer))
    return Loaded(model=model, tokenizer=loaded.tokenizer, config=model.config, name="dropping")


@pytest.mark.parametrize("kept_as", ["float16", "int8"])
def test_tokens_dropped_between_layers_are_so_for_all(
    small: Loaded, picture: Callable[[int], Image.Image], kept_as: KeysValues
) -> None:
    """Alone and beside others the same, with drafts and without, whatever was kept of earlier requests."""
    some = dropping(small, 12, 3)
    several = Conversation().ask(picture(0), picture(2), "How many things are there?")
    asked = [*requests(picture), (several, SamplingParams(max_tokens=9, logprobs=2))]
    alone = [Engine(some, kv_cache=kept_as).generate(*each) for each in asked]
    assert alone[0].tokens == alone[1].tokens  # drafts change nothing
    for budget in (4096, 24):
        engine = Engine(some, cache_tokens=960, max_sequences=3, token_budget=budget, kv_cache=kept_as)
        for _ in range(2):
            check_together(engine, asked, alone)
    everything, whole = (Engine(each, kv_cache=kept_as) for each in (dropping(small, 64, 3), small))
    for each in asked:
        found, wanted = (engine.generate(*each) for engine in (everything, whole))
        assert found.tokens == wanted.tokens and found.logprobs == wanted.logprobs


def test_tokens_dropped_between_layers_are_those_that_torch_drops(picture: Callable[[int], Image.Image]) -> None:
    some = dropping(load("pocket"), 16, 2)
    for asked, params in requests(picture):
        answers = [Engine(some, runner=runner).generate(asked, params) for runner in (None, TorchRunner(some.model))]
        assert answers[0].tokens == answers[1].tokens
        inputs = some.processor(asked)
        assert list(answers[0].tokens) == reference.generate(
            some.model, inputs, params, tokenizer_size=some.tokenizer.size
        )


def test_the_engine_runs_natively_where_nothing_is_lost(small: Loaded) -> None:
    assert isinstance(Engine(small)._runner, NativeRunner)
    loaded = load("pocket")
    with torch.no_grad():
        loaded.model.language.layers[0].mlp.up_proj.weight[0, 0] = 1 / 3  # of more than 16 bits
    assert isinstance(Engine(loaded)._runner, TorchRunner)


def test_keys_and_values_of_8_bits_and_where_they_are_refused(
    small: Loaded, picture: Callable[[int], Image.Image]
) -> None:
    """Answers with the cache grown and shared by two conversations are those of each alone."""
    (first, params), (second, _), *_ = requests(picture)
    engine = Engine(small, kv_cache="int8")
    together = [engine.generate(asked, params).tokens for asked in (first, second, first)]
    alone = [Engine(small, kv_cache="int8").generate(asked, params).tokens for asked in (first, second, first)]
    assert together == alone
    half, whole = (Engine(small, kv_cache=kept)._runner._cache for kept in ("int8", "float16"))
    assert half.shape[:2] == whole.shape[:2] and half.nbytes < 0.6 * whole.nbytes
    loaded = load("pocket")
    with torch.no_grad():
        loaded.model.language.layers[0].mlp.up_proj.weight[0, 0] = 1 / 3
    with pytest.raises(ValueError, match="kept as int8 by the native kernels alone"):
        Engine(loaded, kv_cache="int8")


@pytest.mark.parametrize("scheme", ["floats", "int8"])
@pytest.mark.parametrize("instruction_set", native.instruction_sets() if native else [])
def test_keys_too_large_for_16_bits_are_no_silent_answer(scheme: str, instruction_set: str) -> None:
    loaded = load("pocket")
    with torch.no_grad():
        loaded.model.language.layers[1].self_attn.k_proj.weight *= 2.0**18
    if scheme != "floats":
        quantize_model(loaded.model, SCHEMES[scheme])
    engine, before = Engine(loaded), native.instruction_set()
    assert isinstance(engine._runner, NativeRunner)
    native.use_instruction_set(instruction_set)
    try:
        with pytest.raises(ValueError, match="scores for the next token are not numbers"):
            engine.generate(Conversation().ask("Hello?"), SamplingParams(max_tokens=3))
    finally:
        native.use_instruction_set(before)
    engine.check_integrity()


@pytest.mark.parametrize("scheme", ["floats", "int8"])
@pytest.mark.parametrize("odd", ["tower", "language"])
def test_tower_and_language_model_are_native_or_not_apart(
    scheme: str, odd: str, picture: Callable[[int], Image.Image]
) -> None:
    """Heads of width 24, as SigLIP's of 72, are none for the kernels."""
    pocket = load("pocket")
    changes = {"hidden_size": 96, "num_heads": 4} | ({} if odd == "tower" else {"num_kv_heads": 4, "head_dim": 24})
    part = "vision" if odd == "tower" else "language"
    config = pocket.config.model_copy(update={part: getattr(pocket.config, part).model_copy(update=changes)})
    torch.manual_seed(0)
    model = Llava(config).eval().requires_grad_(False).bfloat16().float()
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.copy_((weight * 2).bfloat16())
    if scheme != "floats":
        quantize_model(model, SCHEMES[scheme])
    loaded = Loaded(model=model, tokenizer=pocket.tokenizer, config=config, name="odd")
    assert (native_tower_kind(model) is None, native_kind(model) is None) == (odd == "tower", odd == "language")
    engine = Engine(loaded)
    assert isinstance(engine._runner, NativeRunner if odd == "tower" else TorchRunner)
    inputs, found = loaded.processor(Conversation().ask(picture(0), "What is in the picture?")), []
    for runner in (engine._runner, TorchRunner(model)):
        embeds = runner.encode(inputs.pixels, inputs.sizes[0]).embeds
        found += runner.step([Span(inputs.tokens, 0, range(len(inputs.tokens) // 16 + 1), embeds)])
    assert (found[0] - found[1]).norm() < 0.03 * found[1].norm()
    assert engine.generate(Conversation().ask(picture(0), "What?"), SamplingParams(max_tokens=5)).tokens
