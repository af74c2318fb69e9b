"""How like two models are, against the definitions."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch

from llavakit.checkpoint.load import Loaded, load
from llavakit.data.collate import Sample
from llavakit.evaluate.likeness import answer_logits, likeness
from llavakit.model import Llava


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> Loaded:
    return load(model_folder)


SAMPLE = Sample([1, 20, 21, 22, 23, 2], [False, False, False, True, True, True])


def shaken(model: Llava) -> Llava:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.language.layers[1].mlp.up_proj.weight *= 1.5
    return other


def test_a_model_is_like_itself(loaded: Loaded) -> None:
    found = likeness(loaded.model, loaded.model, [SAMPLE])
    assert found.kl == 0 and found.agreement.right == found.agreement.n == 3


def test_scores_stand_in_front_of_the_words(loaded: Loaded) -> None:
    with torch.inference_mode():
        hidden = loaded.model(torch.tensor([SAMPLE.tokens]), None, torch.arange(6)[None])
        expected = loaded.model.language.logits(hidden)[0, 2:5]
    torch.testing.assert_close(answer_logits(loaded.model, SAMPLE), expected)


def test_divergence_and_agreement(loaded: Loaded) -> None:
    other = shaken(loaded.model)
    logits = [answer_logits(model, SAMPLE).double() for model in (loaded.model, other)]
    p, q = (one.softmax(-1) for one in logits)
    kl = (p * (p / q).log()).sum(-1)
    found = likeness(loaded.model, other, [SAMPLE])
    assert found.kl == pytest.approx(kl.mean().item(), rel=1e-4) and found.kl > 0
    assert found.kl_spread == pytest.approx(1.96 * kl.std().item() / math.sqrt(3), rel=1e-3)
    assert found.agreement.right == int((p.argmax(-1) == q.argmax(-1)).sum())


def test_nothing_to_compare(loaded: Loaded) -> None:
    with pytest.raises(ValueError, match="no answer to compare"):
        likeness(loaded.model, loaded.model, [])
