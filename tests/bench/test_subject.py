"""What is measured does what it says: the same tokens are computed, however they are asked for."""

from __future__ import annotations

import pytest
import torch

from llavakit.bench.cost import language_matrices
from llavakit.bench.packed_subject import random_packed
from llavakit.bench.schemes import make_subject
from llavakit.bench.shapes import SHAPES, random_model
from llavakit.bench.subject import TorchSubject
from llavakit.kernels import native
from llavakit.kernels.packed import dequantize
from llavakit.model import KVCache
from llavakit.quantize.schemes import Grid

TINY = SHAPES["tiny"]


def test_the_steps_leave_so_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = TorchSubject(random_model(TINY, dtype=torch.float32))
    seen = []
    step = TorchSubject._step

    def watched(self: TorchSubject, cache: KVCache, count: int) -> None:
        step(self, cache, count)
        seen.append((cache.keys.shape[1], cache.length))

    monkeypatch.setattr(TorchSubject, "_step", watched)
    subject.encode()
    subject.prefill(20, 0)
    subject.decode(2, 20, 1)
    subject.prefill(5, 20)
    subject.decode(2, 20, 3)
    assert seen == [(1, 20), (1, 21), (1, 22), (1, 25), (3, 21), (3, 22)]


def test_a_random_model_is_random_and_whole() -> None:
    model = random_model(TINY, dtype=torch.bfloat16)
    for name, weight in model.named_parameters():
        assert weight.dtype == torch.bfloat16 and weight.isfinite().all() and weight.float().std() > 0.005, name
    again = random_model(TINY, dtype=torch.bfloat16)
    assert all(map(torch.equal, model.parameters(), again.parameters()))


def test_a_token_reads_all_but_the_embedding_and_the_picture() -> None:
    model = random_model(TINY, dtype=torch.float32)
    read = sum(weight.numel() for weight in model.language.parameters()) - model.language.embed_tokens.weight.numel()
    assert TorchSubject(model).decode_bytes == 4 * read


@pytest.mark.skipif(native is None, reason="the native kernels are not built")
@pytest.mark.parametrize(("scheme", "bits"), [("int4-g32", 4.5), ("int4-g128", 4.125), ("int8", 8.125)])
def test_packed_weights_do_every_job(scheme: str, bits: float) -> None:
    subject = make_subject(TINY, scheme, threads=1)
    subject.encode()
    subject.prefill(40, 0)
    subject.decode(2, 40, 1)
    subject.prefill(8, 40)
    subject.decode(2, 40, 3)
    *layers, head = language_matrices(TINY.language)
    wanted = sum(matrix.weights for matrix in layers) * bits / 8 + head.weights * 8.125 / 8
    assert subject.decode_bytes == wanted


@pytest.mark.skipif(native is None, reason="the native kernels are not built")
def test_random_packed_weights_are_numbers() -> None:
    assert dequantize(random_packed(20, 100, Grid("int4", 32))).isfinite().all()


def test_unknown_scheme() -> None:
    with pytest.raises(ValueError, match="no scheme called 'float23': did you mean 'float32'"):
        make_subject(TINY, "float23", threads=1)
