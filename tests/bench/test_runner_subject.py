"""What a runner is measured with: the tokens that are asked for, and the weights that a token reads."""

from __future__ import annotations

import pytest
import torch

from llavakit.bench.runner_subject import RunnerSubject, random_quantised
from llavakit.bench.shapes import SHAPES
from llavakit.bench.subject import TorchSubject
from llavakit.engine.graph_runner import GraphRunner
from llavakit.engine.runner import Span

TINY = SHAPES["tiny"]


def test_the_steps_compute_so_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, seen = RunnerSubject(random_quantised(TINY, "float32"), conversations=3, length=25), []
    step = subject._runner.step

    def watched(spans: list[Span]) -> list[torch.Tensor]:
        seen.append((len(spans), spans[-1].start + len(spans[-1].tokens)))
        return step(spans)

    monkeypatch.setattr(subject._runner, "step", watched)
    subject.encode()
    subject.prefill(20, 0)
    subject.decode(2, 20, 1)
    subject.prefill(5, 20)
    subject.decode(2, 20, 3)
    assert subject._blocks == 2 and seen == [(1, 20), (1, 21), (1, 22), (1, 25), (3, 20), (3, 21), (3, 22)]


def test_plain_weights_are_counted_as_by_the_plain_subject() -> None:
    model = random_quantised(TINY, "bfloat16")
    assert RunnerSubject(model, conversations=1, length=1).decode_bytes == TorchSubject(model).decode_bytes


@pytest.mark.parametrize(("scheme", "bits"), [("int8", 8.125), ("int4-g32", 4.5), ("int4-g128", 4.125)])
def test_quantised_weights_are_so_many_bytes(scheme: str, bits: float) -> None:
    model = random_quantised(TINY, scheme)
    packed = RunnerSubject(model, conversations=1, length=1).decode_bytes
    taken_over = RunnerSubject(model, conversations=1, length=1, runner=GraphRunner(model, 1))
    assert taken_over.decode_bytes == packed
    in_layers = sum(part.numel() for part in random_quantised(TINY, "float32").language.layers.parameters())
    head = TINY.language.vocab_size * TINY.language.hidden_size
    assert packed == pytest.approx(in_layers * bits / 8 + head * 8.125 / 8, rel=0.02)
