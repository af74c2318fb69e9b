"""The arithmetic of what a job costs, against the modules themselves and against the known shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from llavakit.bench.cost import decode_work, encode_work, language_matrices, prefill_work, tower_matrices
from llavakit.bench.shapes import SHAPES, find_shapes
from llavakit.config import LlavaConfig
from llavakit.model import Llava


@pytest.mark.parametrize("name", SHAPES)
def test_every_weight_of_every_matrix_is_counted(name: str) -> None:
    config = SHAPES[name]
    with torch.device("meta"):
        model = Llava(config)
    linear = [part for part in model.language.modules() if isinstance(part, nn.Linear)]
    assert sum(matrix.weights for matrix in language_matrices(config.language)) == sum(
        part.weight.numel() for part in linear
    )
    linear = [
        part for half in (model.vision, model.projector) for part in half.modules() if isinstance(part, nn.Linear)
    ]
    assert sum(matrix.weights for matrix in tower_matrices(config)) == sum(part.weight.numel() for part in linear)


def test_llava_7b_costs_what_is_known() -> None:
    config = find_shapes("llava-1.5-7b")
    weights = sum(matrix.weights for matrix in language_matrices(config.language))
    assert round(weights / 1e9, 3) == 6.607
    decode = decode_work(config.language, context=640, weight_bytes=weights * 4.5 / 8)
    assert round(decode.bytes / 1e9, 2) == round(3.716 + 0.335, 2)
    assert round(decode.seconds(gigabytes_per_s=47, gigaoperations_per_s=2055), 4) == round(decode.bytes / 47e9, 4)
    prefill = prefill_work(config.language, tokens=640, start=0, weight_bytes=weights * 4.5 / 8)
    assert round(prefill.operations / 1e12, 1) == 8.4  # 8.29 of matrices, 0.11 of attention
    assert round(prefill.seconds(gigabytes_per_s=47, gigaoperations_per_s=2055), 1) == 4.1
    assert round(encode_work(config, weight_bytes=0).operations / 1e12, 2) == 0.39


def test_a_batch_reads_the_weights_once() -> None:
    language = LlavaConfig().language
    one, eight = (decode_work(language, context=100, weight_bytes=1e9, batch=batch) for batch in (1, 8))
    assert eight.bytes - 1e9 == 8 * (one.bytes - 1e9) and eight.operations == 8 * one.operations


def test_two_halves_of_a_prompt_cost_the_whole_of_it() -> None:
    language = LlavaConfig().language
    whole = prefill_work(language, tokens=640, start=0, weight_bytes=0)
    first = prefill_work(language, tokens=300, start=0, weight_bytes=0)
    rest = prefill_work(language, tokens=340, start=300, weight_bytes=0)
    head = 2 * language_matrices(language)[-1].weights  # read by the last token of either half
    assert first.operations + rest.operations == whole.operations + head


def test_unknown_shapes() -> None:
    with pytest.raises(ValueError, match="no shapes called 'llava-1.5-8b': did you mean 'llava-1.5-7b'"):
        find_shapes("llava-1.5-8b")
