"""The schedule's ends, and which parameters go where."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llavakit.train.config import TrainConfig
from llavakit.train.optimizer import make_optimizers, rate_at, set_rate
from llavakit.train.setup import prepare


def test_the_schedule_rises_to_its_top_and_falls_to_its_end() -> None:
    shares = [rate_at(step, steps=100, warmup=0.1, min_rate=0.2) for step in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9] == shares[10] == 1
    assert shares[55] == pytest.approx(0.6)  # half of the way down the cosine
    assert shares[100] == pytest.approx(0.2)
    assert shares[:10] == sorted(shares[:10]) and shares[10:] == sorted(shares[10:], reverse=True)


@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.99])
def test_a_single_step_is_taken_at_the_top_rate(warmup: float) -> None:
    assert rate_at(0, steps=1, warmup=warmup, min_rate=0) == 1


def test_muon_takes_the_matrices_inside_layers(configure: Callable[..., TrainConfig]) -> None:
    model = prepare(configure("instruct")).model
    config = configure("instruct", optimizer="muon", weight_decay=0.5)
    adamw, muon = make_optimizers(model, {"language": 1e-2}, config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    taken = [{names[id(p)] for group in optimizer.param_groups for p in group["params"]} for optimizer in (adamw, muon)]
    assert all("_proj.weight" in name for name in taken[1])
    assert any("embed_tokens" in name for name in taken[0]) and any("norm" in name for name in taken[0])
    assert taken[0] | taken[1] == {name for name in names.values() if name.startswith("language.")}
    assert not any(group["weight_decay"] for group in adamw.param_groups)
    assert {group["weight_decay"] for group in muon.param_groups} == {0.5}


def test_decay_is_for_matrices(configure: Callable[..., TrainConfig]) -> None:
    model = prepare(configure("align")).model
    (optimizer,) = make_optimizers(model, {"projector": 1e-2}, configure("align", weight_decay=0.5))
    decay = {p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {1: 0.0, 2: 0.5}


def test_every_group_keeps_its_share(configure: Callable[..., TrainConfig]) -> None:
    model = prepare(configure("instruct")).model
    optimizers = make_optimizers(model, {"projector": 1e-2, "vision": 1e-3}, configure("instruct"))
    set_rate(optimizers, 0.5)
    assert {group["lr"] for optimizer in optimizers for group in optimizer.param_groups} == {5e-3, 5e-4}
