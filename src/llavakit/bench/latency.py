"""One conversation: how long the picture takes, the prompt, each word, and a second question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from PIL import Image

from llavakit.bench.cost import decode_work, works
from llavakit.bench.figures import figure
from llavakit.bench.peers.jobs import Prompt, check_length
from llavakit.bench.peers.worker import memory, seconds_of
from llavakit.bench.probe import probe
from llavakit.bench.subject import Subject
from llavakit.checkpoint.load import Loaded
from llavakit.config import LlavaConfig
from llavakit.engine.blocks import num_blocks_for
from llavakit.engine.engine import Engine, runner_for
from llavakit.engine.sampling import SamplingParams
from llavakit.kernels.graph import KeysValues
from llavakit.processing import Conversation

FIRST, SECOND = "Describe the picture in detail.", "How many things are in the picture?"


def measure_subject(
    subject: Subject,
    config: LlavaConfig,
    *,
    prompt: Prompt,
    threads: int,
    rounds: int,
    device: str = "cpu",
    kv_cache: KeysValues | None = None,
) -> dict[str, Any]:
    """A model of given shapes: every job alone, beside what the machine could do in the same round."""
    check_length(config, prompt)
    subject.encode()
    subject.prefill(prompt.first, 0)
    subject.decode(1, prompt.first, 1)
    weights = subject.decode_bytes
    work = works(config, first=prompt.first, second=prompt.second, weight_bytes=weights, kv_cache=kv_cache)
    read = decode_work(config.language, context=prompt.first, weight_bytes=weights, kv_cache=kv_cache).bytes
    found: dict[str, list[float]] = defaultdict(list)
    parts: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def timed(job: str, times: int, call: Callable[..., Any], *arguments: int) -> float:
        subject.take_parts()
        seconds = seconds_of(call, *arguments) / times
        for part, taken in subject.take_parts().items():
            parts[job][part].append(1e3 * taken / times)
        return seconds

    for _ in range(rounds):
        ceilings = probe(threads, device)
        encode, prefill = seconds_of(subject.encode), timed("prefill", 1, subject.prefill, prompt.first, 0)
        decode = timed("decode", prompt.spoken, subject.decode, prompt.spoken, prompt.first, 1)
        second = timed("second", 1, subject.prefill, prompt.second, prompt.first)
        found["encode_ms"].append(1e3 * encode)
        found["prefill_tokens_per_s"].append(prompt.first / prefill)
        found["decode_tokens_per_s"].append(1 / decode)
        found["first_token_ms"].append(1e3 * (encode + prefill))
        found["second_question_ms"].append(1e3 * second)
        found["read_gbps"].append(ceilings.read_gbps)
        found["decode_share_of_bandwidth"].append(read / decode / (ceilings.read_gbps * 1e9))
        if ceilings.int8_gops:
            found["int8_gops"].append(ceilings.int8_gops)
        if ceilings.bfloat16_gflops:
            found["bfloat16_gflops"].append(ceilings.bfloat16_gflops)
            rate = work["prefill"]["gigaoperations"] / prefill
            found["prefill_share_of_products"].append(rate / ceilings.bfloat16_gflops)
    told = {job: _figures(taken) for job, taken in parts.items()}
    return {"figures": _figures(found), "parts_ms": told, "memory": memory(), "work": work, "rounds": rounds}


def measure_engine(
    loaded: Loaded,
    picture: Image.Image,
    *,
    threads: int,
    rounds: int,
    max_tokens: int,
    kv_cache: KeysValues | None = None,
) -> dict[str, Any]:
    """A real model through the engine: two questions about one picture that it has not seen before."""
    params, device = SamplingParams(max_tokens=max_tokens), loaded.model.language.norm.weight.device.type
    # One for all rounds, because it may have to be compiled; the engine of each round finds nothing computed before.
    num_blocks = num_blocks_for(loaded.config.language.max_positions)
    runner = runner_for(loaded.model, num_blocks, is_compiled=True, kv_cache=kv_cache)
    found: dict[str, list[float]] = defaultdict(list)
    for round_ in range(-1, rounds):  # the first one warms up
        engine = Engine(loaded, runner=runner)
        ceilings = probe(threads, device)
        asked = Conversation().ask(picture, FIRST)
        first = engine.generate(asked, params)
        second = engine.generate(asked.answer(first.text).ask(SECOND), params)
        if round_ < 0:
            continue
        found["encode_ms"].append(first.timings.encode_ms)
        found["prefill_tokens_per_s"].append(1e3 * len(first.prompt_tokens) / first.timings.prefill_ms)
        if len(first.tokens) > 1:
            found["decode_tokens_per_s"].append(1e3 * len(first.tokens) / first.timings.decode_ms)
        found["first_token_ms"].append(first.timings.first_token_ms)
        found["second_question_ms"].append(second.timings.first_token_ms)
        found["read_gbps"].append(ceilings.read_gbps)
        if ceilings.int8_gops:
            found["int8_gops"].append(ceilings.int8_gops)
    return {"figures": _figures(found), "memory": memory(), "rounds": rounds}


def _figures(found: dict[str, list[float]]) -> dict[str, Any]:
    return {name: figure(values) for name, values in found.items()}


def noisy(side: int) -> Image.Image:
    """A picture of so many pixels a side; what it shows does not matter."""
    return Image.effect_noise((side, side), 80).convert("RGB")
