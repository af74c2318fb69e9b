"""From the scores of the next token to the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from llavakit.config import Config, LlavaConfig


class SamplingParams(Config):
    """How an answer is drawn and where it ends.

    The filters follow transformers in meaning and order: repetition penalty, temperature, top-k, top-p, min-p. A
    temperature of 0 takes the best token, always the same; then seed, top-k, top-p and min-p change nothing. `top_k`
    0, `top_p` 1, `min_p` 0 and `repetition_penalty` 1 are off. Without a seed every run draws anew.

    `logprobs` asks for the likelihood of each token and of so many alternatives. `draft_tokens` is how many tokens may
    be guessed and verified in one step: the answer stays what it is without them.
    """

    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    seed: int | None = Field(None, ge=0, lt=2**63)
    max_tokens: int = Field(512, gt=0)
    stop: tuple[str, ...] = ()
    logprobs: int | None = Field(None, ge=0, le=100)
    draft_tokens: int = Field(0, ge=0, le=64)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "" in self.stop:
            raise ValueError("a stop string is empty; give at least one character, or leave it out")
        return self

    def generator(self) -> torch.Generator:
        """A fresh source of chance for one answer, on the CPU: the same draws on every device."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator


def forbidden_tokens(config: LlavaConfig, tokenizer_size: int) -> Bool[Tensor, " vocab"]:
    """True for the ids no answer may hold: the image placeholder, and those the tokenizer cannot spell.

    Checkpoints pad the vocabulary to a round number; those rows were never trained.
    """
    ids = torch.arange(config.language.vocab_size)
    return (ids >= tokenizer_size) | (ids == config.tokens.image)


def sample(
    logits: Float[Tensor, " vocab"], params: SamplingParams, generator: torch.Generator, history: Sequence[int]
) -> int:
    """Choose the next token. `history` is every token so far, prompt included, for the repetition penalty.

    Raises ValueError where the scores are not numbers.
    """
    if params.temperature == 0:
        scores = _penalized(logits.cpu(), params, history)
        token = int(scores.argmax())
        _check_best(scores[token])
        return token
    return int(torch.multinomial(probabilities(logits, params, history), 1, generator=generator))


def sample_verifying(
    logits: Float[Tensor, "num_logits vocab"],
    drafts: Sequence[int],
    params: SamplingParams,
    generator: torch.Generator,
    history: Sequence[int],
) -> list[int]:
    """The drafts up to the first wrong one, and the token that stands behind them: at least one, at most all and one.

    Each token is drawn as if there were no drafts, and a draft is right if it is what was drawn. So it is accepted with
    its own probability p, and where it is not, the draw is from the rest, in proportion: for a draft without chance of
    its own this is the acceptance rule of Leviathan et al. (2023), with the same draws as without drafts.
    """
    tokens: list[int] = []
    for scores, draft in zip(logits, [*drafts, None], strict=True):
        tokens.append(sample(scores, params, generator, [*history, *tokens]))
        if tokens[-1] != draft:
            break
    return tokens


def probabilities(
    logits: Float[Tensor, " vocab"], params: SamplingParams, history: Sequence[int]
) -> Float[Tensor, " vocab"]:
    """The distribution `sample` draws from at a temperature above 0; in float64, so that long sums stay exact."""
    scores = _penalized(logits.cpu().double(), params, history)
    best = scores.max()
    _check_best(best)
    scores = (scores - best) / params.temperature  # the best at 0 first: a tiny temperature cannot overflow
    if 0 < params.top_k < len(scores):
        scores = scores.masked_fill(scores < scores.topk(params.top_k).values[-1], -torch.inf)
    if params.top_p < 1:
        scores = scores.masked_fill(_outside_nucleus(scores, params.top_p), -torch.inf)
    probs = scores.softmax(-1)
    if params.min_p > 0:
        probs = probs.masked_fill(probs < params.min_p * probs.max(), 0)
    return probs / probs.sum()


def _check_best(score: Float[Tensor, ""]) -> None:
    """NaN counts as the largest of all, so one look at the best score sees any that is no number."""
    if not math.isfinite(score):
        raise ValueError(
            "The model's scores for the next token are not numbers, so there is no answer: its weights are damaged, or "
            "what it computes is too large for the number format it is computed in."
        )


def _penalized(
    logits: Float[Tensor, " vocab"], params: SamplingParams, history: Sequence[int]
) -> Float[Tensor, " vocab"]:
    """Make tokens seen before less likely (Keskar et al. 2019): positive scores divided, negative ones multiplied."""
    if params.repetition_penalty == 1 or not history:
        return logits
    seen = torch.tensor(sorted(set(history)))
    scores = logits[seen]
    penalized = torch.where(scores > 0, scores / params.repetition_penalty, scores * params.repetition_penalty)
    return logits.index_copy(0, seen, penalized)


def _outside_nucleus(scores: Float[Tensor, " vocab"], top_p: float) -> Bool[Tensor, " vocab"]:
    """True outside the nucleus: the fewest likeliest tokens that hold `top_p` together (Holtzman et al. 2020)."""
    sorted_probs, order = scores.softmax(-1).sort(descending=True, stable=True)
    before = sorted_probs.cumsum(-1) - sorted_probs
    return torch.zeros_like(scores, dtype=torch.bool).index_copy(0, order, before >= top_p)
