"""Sampling against transformers' processors and against a second implementation in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llavakit.config import ConfigError, LanguageConfig, LlavaConfig, SpecialTokens
from llavakit.engine.sampling import SamplingParams, forbidden_tokens, probabilities, sample

VOCAB = 12

PARAMS = st.builds(
    SamplingParams,
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, VOCAB + 2),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.5, 2),
    seed=st.integers(0, 2**63 - 1),
)
# Uneven, so that no two scores meet and no filter's edge depends on rounding, whatever the penalty.
LOGITS = st.permutations([3 * math.sin(x * x + 1) for x in range(VOCAB)]).map(torch.tensor)
HISTORY = st.lists(st.integers(0, VOCAB - 1), max_size=8)


def plain_probabilities(logits: list[float], params: SamplingParams, history: list[int]) -> list[float]:
    """The same distribution, written a second time without tensors."""
    p = params.repetition_penalty
    scores = [(x / p if x > 0 else x * p) if i in history else x for i, x in enumerate(logits)]
    weights = [math.exp((x - max(scores)) / params.temperature) for x in scores]
    ranked = sorted(range(len(weights)), key=lambda i: -weights[i])
    kept = ranked[: params.top_k or None]
    total = sum(weights[i] for i in kept)
    nucleus, mass = [], 0.0
    for i in kept:
        if mass / total >= params.top_p and params.top_p < 1:
            break
        nucleus.append(i)
        mass += weights[i]
    likely = [i for i in nucleus if weights[i] >= params.min_p * weights[ranked[0]]]
    total = sum(weights[i] for i in likely)
    return [weights[i] / total if i in likely else 0.0 for i in range(len(weights))]


@given(LOGITS, PARAMS, HISTORY)
def test_distribution_equals_a_plain_implementation(
    logits: torch.Tensor, params: SamplingParams, history: list[int]
) -> None:
    expected = torch.tensor(plain_probabilities(logits.tolist(), params, history), dtype=torch.float64)
    torch.testing.assert_close(probabilities(logits, params, history), expected, atol=1e-9, rtol=1e-6)


@given(LOGITS, PARAMS, HISTORY)
def test_distribution_equals_transformers(logits: torch.Tensor, params: SamplingParams, history: list[int]) -> None:
    steps = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(params.repetition_penalty)] if history else [])
    steps.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        steps.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        steps.append(TopPLogitsWarper(params.top_p))
    steps.append(MinPLogitsWarper(params.min_p))
    expected = steps(torch.tensor([history], dtype=torch.long), logits.double()[None])[0].softmax(-1)
    torch.testing.assert_close(probabilities(logits, params, history), expected, atol=1e-9, rtol=1e-6)


@given(LOGITS, PARAMS, HISTORY)
def test_greedy_is_the_best_token_after_the_penalty_whatever_else_is_set(
    logits: torch.Tensor, params: SamplingParams, history: list[int]
) -> None:
    greedy = params.model_copy(update={"temperature": 0})
    p = params.repetition_penalty
    scores = [(x / p if x > 0 else x * p) if i in history else x for i, x in enumerate(logits.tolist())]
    assert sample(logits, greedy, greedy.generator(), history) == max(range(VOCAB), key=scores.__getitem__)


@settings(max_examples=5)
@given(LOGITS, PARAMS, HISTORY)
def test_draws_follow_the_distribution(logits: torch.Tensor, params: SamplingParams, history: list[int]) -> None:
    generator, num_draws = params.generator(), 1000
    counts = torch.zeros(VOCAB, dtype=torch.float64)
    for _ in range(num_draws):
        counts[sample(logits, params, generator, history)] += 1
    probs = probabilities(logits, params, history)
    assert not counts[probs == 0].any()
    spread = (probs * (1 - probs) / num_draws).sqrt()
    assert ((counts / num_draws - probs).abs() <= 5 * spread + 1e-9).all()


@given(LOGITS, PARAMS)
def test_a_seed_repeats_its_draws(logits: torch.Tensor, params: SamplingParams) -> None:
    first, second = (
        [sample(logits, params, g, []) for _ in range(5)] for g in (params.generator(), params.generator())
    )
    assert first == second


def test_without_a_seed_every_generator_differs() -> None:
    params = SamplingParams(temperature=1)
    assert params.generator().initial_seed() != params.generator().initial_seed()


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e30])
def test_extreme_temperatures_stay_finite(temperature: float) -> None:
    logits = torch.tensor([-torch.inf, -50.0, 3.0, 80.0])
    probs = probabilities(logits, SamplingParams(temperature=temperature, top_p=0.999, min_p=0.01, top_k=3), [])
    assert probs.isfinite().all() and probs[0] == 0
    assert temperature > 1 or probs[3] == 1


def test_forbidden_are_the_placeholder_and_what_the_tokenizer_cannot_spell() -> None:
    config = LlavaConfig(language=LanguageConfig(vocab_size=10), tokens=SpecialTokens(image=3))
    assert forbidden_tokens(config, 8).nonzero().flatten().tolist() == [3, 8, 9]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_p": 0}, "top_p is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"stop": ("a", "")}, "stop string is empty"),
        ({"temprature": 1}, "did you mean 'temperature'"),
    ],
)
def test_wrong_parameters_are_named(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SamplingParams.parse(wrong)


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(temperature=1, top_k=3, top_p=0.9)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_told(params: SamplingParams, value: float) -> None:
    for place in range(VOCAB):
        logits = torch.arange(VOCAB).float()
        logits[place] = value
        with pytest.raises(ValueError, match="not numbers.*damaged.*too large"):
            sample(logits, params, params.generator(), [])
    with pytest.raises(ValueError, match="not numbers"):
        sample(torch.full((VOCAB,), -math.inf), params, params.generator(), [])
