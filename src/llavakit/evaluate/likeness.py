"""How much like a model another one answers, word by word: what a quantised model is judged by, beside its scores."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from llavakit.data.collate import Sample
from llavakit.evaluate.prompts import hidden_states
from llavakit.evaluate.score import NORMAL_95, Score
from llavakit.model import Llava


@dataclass(frozen=True)
class Likeness:
    """Over the words of given answers, each foretold from all that stands before it.

    `kl` is the mean Kullback-Leibler divergence from the first model's probabilities to the second's, in nats, and
    `kl_spread` half of its 95% interval; `agreement` counts how often both find the same word likeliest.
    """

    kl: float
    kl_spread: float
    agreement: Score


@torch.inference_mode()
def likeness(model: Llava, other: Llava, samples: Iterable[Sample]) -> Likeness:
    """Compare two models of one vocabulary; raises ValueError where there is no word to compare."""
    divergences, same = [], []
    for sample in samples:
        expected, given = answer_logits(model, sample).log_softmax(-1), answer_logits(other, sample).log_softmax(-1)
        divergences.append((expected.exp() * (expected - given)).sum(-1))
        same.append(expected.argmax(-1) == given.argmax(-1))
    if not divergences:
        raise ValueError("there is no answer to compare two models on")
    kl = torch.cat(divergences).double()
    spread = NORMAL_95 * kl.std().item() / math.sqrt(len(kl)) if len(kl) > 1 else math.inf
    return Likeness(kl.mean().item(), spread, Score.of(torch.cat(same).tolist()))


@torch.inference_mode()
def answer_logits(model: Llava, sample: Sample) -> Float[Tensor, "words vocab"]:
    """Scores in front of each word of the answers, in float32."""
    places = torch.tensor(sample.targets[1:]).nonzero().flatten()
    hidden = hidden_states(model, sample)
    return model.language.logits(hidden[places.to(hidden.device)]).float()
