"""Steps of fixed shapes: the scores and answers of the plain way, whatever is padded, drafted, copied or left out."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import copy, deepcopy
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from llavakit.bench.shapes import SHAPES, random_model
from llavakit.checkpoint.load import Loaded, load
from llavakit.config import LlavaConfig, VisualTokens
from llavakit.engine import engine as engine_module
from llavakit.engine import reference
from llavakit.engine.blocks import num_blocks_for
from llavakit.engine.engine import Engine
from llavakit.engine.graph_runner import LADDER, GraphRunner, num_blocks_in_plan, reason_against
from llavakit.engine.recorded import Step
from llavakit.engine.runner import Span, TorchRunner
from llavakit.engine.sampling import SamplingParams
from llavakit.processing.conversation import Conversation
from llavakit.quantize.apply import quantize_model
from llavakit.quantize.schemes import SCHEMES

Draw = Callable[[int], Image.Image]


class Watched:
    """A recorder that remembers the shapes it was asked for, and records as a GPU does: one place for plans and scores.

    A replay reads the plan from the first one's place, and writes over what the replay before it gave.
    """

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []

    def __call__(self, step: Step, plan: torch.Tensor) -> Step:
        self.shapes.append(tuple(plan.shape))
        given, made = plan.clone(), step(plan)

        def replay(plan: torch.Tensor) -> torch.Tensor:
            given.copy_(plan)
            return made.copy_(step(given))

        return replay


def tokens_of(number: int, seed: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.randint(4, 300) for _ in range(number)]


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=3e-5, rtol=0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_biased", [False, True])
def test_scores_are_those_of_the_plain_runner_however_a_sequence_is_cut(
    loaded: Loaded, seed: int, is_biased: bool
) -> None:
    chance, number = random.Random(seed), 6
    model = copy(loaded.model)
    model.config = model.config.with_visual_tokens(VisualTokens(count=2) if is_biased else None)
    lengths = [chance.randint(1, 90) for _ in range(number)]
    sequences = [tokens_of(length, seed + length) for length in lengths]
    blocks = list(range(60))
    chance.shuffle(blocks)
    tables = [[blocks.pop() for _ in range(num_blocks_for(length))] for length in lengths]
    gaps = [chance.choice([0, 5]) for _ in range(number)]  # as pictures leave them
    runners = GraphRunner(model, 60), TorchRunner(model)
    if is_biased:  # there are traces of others in all blocks
        full = Span(tokens_of(960, 9), 0, range(60), num_logits=0, bias=[5.0] * 960)
        for runner in runners:
            runner.step([full])
    done = [0] * number
    while any(start < length for start, length in zip(done, lengths, strict=True)):
        spans = []
        for i in chance.sample(range(number), number):
            if done[i] < lengths[i]:
                start, end = done[i], min(lengths[i], done[i] + chance.choice([1, 1, 1, 4, 30]))
                positions = [at + gaps[i] * (at > 10) for at in range(start, end)]
                wanted = chance.randint(0, end - start)
                bias = [float(at % 4) for at in range(start, end)] if is_biased and start % 2 else None
                spans.append(Span(sequences[i][start:end], start, tables[i], None, wanted, positions, bias))
                done[i] = end
        for found, wanted in zip(*(runner.step(spans) for runner in runners), strict=True):
            close(found, wanted)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 33, 64, 65, 130])
def test_rows_are_padded_to_the_ladder_and_padding_changes_nothing(loaded: Loaded, count: int) -> None:
    watched = Watched()
    runner, plain = GraphRunner(loaded.model, count, recorder=watched), TorchRunner(loaded.model)
    spans = [Span([4 + i % 300], 0, [i]) for i in range(count)]
    for found, wanted in zip(runner.step(spans), plain.step(spans), strict=True):
        close(found, wanted)
    steps = -(-count // LADDER[-1])
    rows = [rows for rows, _ in watched.shapes]
    assert set(rows) <= set(LADDER) and sum(rows) >= (count if steps == 1 else LADDER[-1])


def test_each_shape_is_recorded_once(loaded: Loaded) -> None:
    watched, tokens = Watched(), [tokens_of(300, seed) for seed in range(3)]
    runner, plain = GraphRunner(loaded.model, 60, recorder=watched), TorchRunner(loaded.model)
    tables = [range(20 * row, 20 * row + 20) for row in range(3)]
    for start in range(0, 300, 10):  # beyond 256 tokens, where plans become wider
        spans = [Span(tokens[row][start : start + 10], start, tables[row], None, 10) for row in range(1 + start % 3)]
        for found, wanted in zip(runner.step(spans), plain.step(spans), strict=True):
            close(found, wanted)
    assert len(watched.shapes) == len(set(watched.shapes)) and {width for _, width in watched.shapes} == {20, 36}


def test_a_plan_grows_in_few_steps_up_to_the_context() -> None:
    assert {num_blocks_in_plan(needed, 100) for needed in range(1, 101)} == {16, 32, 64, 100}
    assert num_blocks_in_plan(3, 5) == 5


def test_blocks_are_copied_and_used_again(loaded: Loaded) -> None:
    runner, tokens, others = GraphRunner(loaded.model, 9), tokens_of(30, 0), tokens_of(40, 1)
    runner.step([Span(tokens[:20], 0, [0, 1], num_logits=0)])
    runner.copy(1, 8)
    runner.step([Span(others[:9], 20, [0, 8])])  # goes on in the copy
    [found] = runner.step([Span(tokens[20:], 20, [0, 1], num_logits=10)])
    [wanted] = TorchRunner(loaded.model).step([Span(tokens, 0, [0, 1], num_logits=10)])
    close(found, wanted)
    [again] = [runner.step([Span(others[at : at + 10], at, [8, 0, 1])])[0] for at in range(0, 40, 10)][-1:]
    close(again, TorchRunner(loaded.model).step([Span(others, 0, [0, 1, 2])])[0])


def test_a_block_that_is_not_there_is_no_place(loaded: Loaded) -> None:
    with pytest.raises(AssertionError, match="block 4 of 4"):
        GraphRunner(loaded.model, 4).step([Span([5], 0, [4])])


def with_fewer(loaded: Loaded, wanted: VisualTokens | None) -> Loaded:
    model = deepcopy(loaded.model)
    model.config = loaded.config.with_visual_tokens(wanted)
    return Loaded(model=model, tokenizer=loaded.tokenizer, config=model.config, name="fewer")


@pytest.mark.parametrize("fewer", [None, VisualTokens(count=2), VisualTokens(count=2, after_layer=1)])
@pytest.mark.parametrize("seed", range(3))
def test_any_mix_of_requests_equals_the_reference(
    loaded: Loaded, picture: Draw, seed: int, fewer: VisualTokens | None
) -> None:
    loaded = with_fewer(loaded, fewer)
    chance, asked = random.Random(seed), []
    engine = Engine(
        loaded, runner=GraphRunner(loaded.model, 60), cache_tokens=960, token_budget=chance.choice([33, 500])
    )
    for turn in range(10):
        pictures = [picture(chance.randint(0, 2)) for _ in range(chance.choice([0, 1, 2]))]
        conversation = Conversation().ask(*pictures, chance.choice(["what?", "the same again and again and again"]))
        params = SamplingParams(
            max_tokens=chance.randint(1, 25),
            temperature=chance.choice([0.0, 0.8]),
            seed=turn,
            draft_tokens=chance.choice([0, 4]),
        )
        asked.append((engine.submit(conversation, params), conversation, params))
        engine.step()
    while not engine.is_idle:
        engine.step()
        engine.check_integrity()
    for request, conversation, params in asked:
        inputs = loaded.processor(conversation)
        wanted = reference.generate(loaded.model, inputs, params, tokenizer_size=loaded.tokenizer.size)
        assert request.completion is not None and list(request.completion.tokens) == wanted


@pytest.mark.parametrize(
    ("kind", "device", "is_compiled", "fewer", "wanted"),
    [
        ("packed", "cpu", True, None, "NativeRunner"),
        ("packed", "cpu", True, VisualTokens(count=2, after_layer=1), "NativeRunner"),
        (None, "cpu", True, None, "TorchRunner"),
        (None, "cuda", False, None, "TorchRunner"),
        (None, "mps", True, None, "TorchRunner"),
        (None, "cuda", True, None, "GraphRunner"),
        (None, "cuda", True, VisualTokens(count=2), "GraphRunner"),
        (None, "cuda", True, VisualTokens(count=2, after_layer=1), "GraphRunner"),
    ],
)
def test_the_runner_for_a_model(
    kind: str | None,
    device: str,
    is_compiled: bool,
    fewer: VisualTokens | None,
    wanted: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NativeRunner", "TorchRunner", "GraphRunner"):
        monkeypatch.setattr(engine_module, name, lambda *arguments, name=name, **options: name)
    monkeypatch.setattr(engine_module, "native_kind", lambda model: kind)
    monkeypatch.setattr(engine_module, "reason_against", lambda model, blocks: "no room" if blocks > 4 else None)
    weight = SimpleNamespace(device=torch.device(device))
    config = LlavaConfig().with_visual_tokens(fewer)
    model = SimpleNamespace(config=config, language=SimpleNamespace(norm=SimpleNamespace(weight=weight), layers=[]))
    assert engine_module.runner_for(model, 4, is_compiled=is_compiled) == wanted
    if wanted == "GraphRunner":
        with pytest.warns(UserWarning, match="computed by torch on this GPU.*no room"):
            assert engine_module.runner_for(model, 5, is_compiled=is_compiled) == "TorchRunner"


def test_a_model_that_was_taken_over_is_no_other_engine_s(loaded: Loaded) -> None:
    model = deepcopy(loaded.model)
    model.language.layers[0] = torch.nn.Identity()
    with pytest.raises(ValueError, match="another engine took this model over"):
        engine_module.runner_for(model, 4)


def test_why_a_model_is_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = pytest.importorskip("triton.runtime").driver
    model = random_model(SHAPES["tiny"], dtype=torch.float32)
    config = model.config.language
    a_block = 2 * 4 * 16 * config.num_layers * config.num_kv_heads * config.head_dim  # keys and values of 16 tokens
    free = 100 * a_block
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "8.0 or higher" in (reason_against(model, 1) or "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert "cannot be compiled" in (reason_against(model, 1) or "")  # there is no card here
    monkeypatch.setattr(driver, "_active", SimpleNamespace(utils=None))
    assert reason_against(model, 89) is None
    assert "do not fit" in (reason_against(model, 91) or "")
    odd = deepcopy(model)
    odd.language.config = odd.language.config.model_copy(update={"intermediate_size": 500})
    assert "its shapes" in (reason_against(odd, 1) or "")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_quantised_model_answers_by_its_own_numbers(scheme: str, picture: Draw) -> None:
    loaded = load("pocket")
    quantize_model(loaded.model, SCHEMES[scheme])
    inputs = loaded.processor(Conversation().ask(picture(0), "What is in the picture?"))

    def spans(embeds: torch.Tensor) -> list[Span]:
        return [Span(inputs.tokens, 0, range(40), embeds), Span([5], 0, [50]), Span([6, 7], 0, [51])]

    plain = TorchRunner(loaded.model)
    wanted = plain.step(spans(plain.encode(inputs.pixels, inputs.sizes[0]).embeds))
    runner = GraphRunner(loaded.model, 60)
    found = runner.step(spans(runner.encode(inputs.pixels, inputs.sizes[0]).embeds))
    for one, other in zip(found, wanted, strict=True):  # the plain way rounds activations to int8
        assert (one - other).norm() < 0.05 * other.norm()


def test_what_a_failed_request_left_behind_is_not_read(loaded: Loaded) -> None:
    span, scores = Span(tokens_of(5, 1), 0, [1]), []
    for left in (0.0, float("nan")):
        runner = GraphRunner(loaded.model, 2)
        for tensor in [*runner._storage.keys, *runner._storage.values]:
            tensor.fill_(left)
        scores.append(runner.step([span])[0])
    assert torch.equal(*scores)
