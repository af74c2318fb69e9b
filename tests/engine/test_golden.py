"""Whole answers against those of Hugging Face's implementation, from folder and picture file to tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llavakit.checkpoint.load import Loaded, load
from llavakit.engine import reference
from llavakit.engine.engine import Engine
from llavakit.engine.sampling import SamplingParams
from llavakit.processing.conversation import Conversation
from llavakit.processing.image import open_image

CASES = [
    "text_only",
    "start_gradient_224x224",
    "start_wide_401x83",
    "start_tiny_17x23",
    "start_tall_120x300",
    "start_round_82x205",
]


@pytest.fixture(scope="module", params=["llava-llama", "llava-next-llama", "llava-next-mistral"])
def hf(request: pytest.FixtureRequest, fixtures: Path) -> tuple[Loaded, dict[str, dict[str, Any]]]:
    cases = json.loads((fixtures / "hf" / "cases" / f"{request.param}.json").read_text())["cases"]
    return load(fixtures / "hf" / "checkpoints" / request.param), {case["name"]: case for case in cases}


def conversation_of(case: dict[str, Any], fixtures: Path) -> Conversation:
    images = iter(case["images"] or [])
    [message] = case["messages"]
    parts = [open_image(fixtures / next(images)) if p["type"] == "image" else p["text"] for p in message["content"]]
    return Conversation(system="").ask(*parts)


def by_engine(loaded: Loaded, conversation: Conversation, params: SamplingParams) -> list[int]:
    return list(Engine(loaded).generate(conversation, params).tokens)


def by_reference(loaded: Loaded, conversation: Conversation, params: SamplingParams) -> list[int]:
    inputs = loaded.processor(conversation)
    return reference.generate(loaded.model, inputs, params, tokenizer_size=loaded.tokenizer.size)


@pytest.mark.parametrize("way", [by_engine, by_reference])
@pytest.mark.parametrize("name", CASES)
def test_answers_equal_those_of_transformers(
    hf: tuple[Loaded, dict[str, dict[str, Any]]],
    fixtures: Path,
    name: str,
    way: Callable[..., list[int]],
    compared: Any,
) -> None:
    loaded, case = hf[0], hf[1][name]
    conversation = conversation_of(case, fixtures)
    about = {"subject": f"llava-hf, {loaded.name}", "oracle": "transformers 4.57.1"}
    prompt = loaded.processor(conversation).tokens
    compared.equal(prompt, case["input_ids"][0], stage="ids of the prompt", **about)
    expected = [token for token in case["generated_ids"][0] if token != loaded.config.tokens.eos]
    answer = way(loaded, conversation, SamplingParams(max_tokens=24))
    compared.equal(answer, expected, stage=f"greedy ids {way.__name__.replace('_', ' ')}", **about)
