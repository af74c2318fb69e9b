"""What only a CUDA device can show: whole answers of its own kernels, recorded as graphs, and its benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image

from llavakit.bench.probe import probe
from llavakit.checkpoint.load import Loaded, load
from llavakit.config import VisualTokens
from llavakit.engine import reference
from llavakit.engine.engine import Engine
from llavakit.engine.gpu_language import GpuLanguage
from llavakit.engine.graph_runner import GraphRunner
from llavakit.engine.runner import Span, TorchRunner
from llavakit.engine.sampling import SamplingParams
from llavakit.processing.conversation import Conversation
from llavakit.quantize.apply import quantize_model
from llavakit.quantize.schemes import SCHEMES

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

QUESTIONS = ("What is in the picture?", "Which colours are there?", "Describe the picture in detail.")


def noise() -> Image.Image:
    return Image.effect_noise((300, 200), 80).convert("RGB")


@pytest.fixture
def loaded() -> Loaded:
    return load("pocket", device="cuda", dtype=torch.float32)


@pytest.mark.parametrize("fewer", [None, VisualTokens(count=16), VisualTokens(count=16, after_layer=3)])
def test_an_engine_answers_as_the_naive_loop_does_on_the_same_card(loaded: Loaded, fewer: VisualTokens | None) -> None:
    loaded = replace(loaded, config=loaded.config.with_visual_tokens(fewer))
    loaded.model.config = loaded.config
    picture, params = noise(), SamplingParams(max_tokens=24)
    wanted = []
    for question in QUESTIONS:
        inputs = loaded.processor(Conversation().ask(picture, question))
        wanted.append(reference.generate(loaded.model, inputs, params, tokenizer_size=loaded.tokenizer.size))
    engine = Engine(loaded, is_compiled=True)
    assert isinstance(engine._runner, GraphRunner) and isinstance(engine._runner._language, GpuLanguage)
    requests = [engine.submit(Conversation().ask(picture, question), params) for question in QUESTIONS]
    while not engine.is_idle:
        engine.step()
    assert [list(request.completion.tokens) for request in requests] == wanted


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_quantised_model_speaks_by_its_own_numbers(scheme: str) -> None:
    loaded = load("pocket")
    quantize_model(loaded.model, SCHEMES[scheme])
    inputs = loaded.processor(Conversation().ask(noise(), QUESTIONS[0]))
    span = Span(inputs.tokens, 0, range(40))

    def scores(runner: TorchRunner | GraphRunner) -> list[torch.Tensor]:
        seen = runner.encode(inputs.pixels, inputs.sizes[0])
        first = runner.step([Span(span.tokens, 0, span.blocks, seen.embeds)])
        after = [Span([5], len(span.tokens), span.blocks), Span([6, 7], 0, [50], num_logits=2)]
        return [one.float().cpu() for one in first + runner.step(after)]

    wanted = scores(TorchRunner(loaded.model))
    runner = GraphRunner(loaded.model.cuda(), 60)
    assert isinstance(runner._language, GpuLanguage)
    for one, other in zip(scores(runner), wanted, strict=True):
        assert (one - other).norm() < 0.05 * other.norm()  # activations are int8 there, and bfloat16 here


def test_ceilings_of_a_card() -> None:
    ceilings = probe(1, "cuda")
    assert 50 < ceilings.read_gbps < 20_000
    assert ceilings.bfloat16_gflops is not None and 1_000 < ceilings.bfloat16_gflops < 10_000_000


@pytest.mark.parametrize("scheme", ["bfloat16", "int8", "int4-g128"])
@pytest.mark.parametrize("what", ["latency", "throughput"])
def test_benchmarks(what: str, scheme: str) -> None:
    command = [sys.executable, "-m", "llavakit", "bench", what, "--device", "cuda", "--shapes", "tiny", "--scheme",
               scheme, "--rounds", "2"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["machine"]["device"] != "cpu"
    assert told["figures"]["prefill_share_of_products"] if what == "latency" else told["share_of_bandwidth"]["8"]
