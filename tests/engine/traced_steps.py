"""Compiles the step for rows and holds it to the same step as it is: traced_steps.py DEVICE SCHEME.

A program of its own, because what checks shapes in tests cannot be traced. Off the GPU the step is traced whole, once
for each shape, and run by torch's own operators; on one it is what the engine uses. Of a prompt only the making of
quantised matrices is compiled. Models that are not quantised are asked for fewer visual tokens, so that some tokens
count for several.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from functools import partial

import torch

from llavakit.checkpoint.load import load
from llavakit.config import VisualTokens
from llavakit.engine.graph_runner import GraphRunner
from llavakit.engine.runner import Span
from llavakit.quantize.apply import quantize_model
from llavakit.quantize.schemes import SCHEMES
from llavakit.quantize.unpacked import UnpackedLinear

TRACED = partial(torch.compile, backend="aot_eager", fullgraph=True, dynamic=False)
PARTS, SHAPES = 3, 2  # the beginning, a layer and the end, however many layers; of 8 rows and of 16


def main(device: str, scheme: str) -> None:
    model = load("pocket").model
    if scheme in SCHEMES:
        quantize_model(model, SCHEMES[scheme])
        model = model.to(torch.bfloat16)  # as on a GPU: torch's operator for 4 bits takes nothing else
    else:
        model.config = model.config.with_visual_tokens(VisualTokens(count=16))
    bias = [2.0, 0.0, 1.0, 0.0, 3.0] if model.config.visual_tokens else None
    model = model.to(device)
    assert len(model.language.layers) > 1
    plain = GraphRunner(deepcopy(model), 64, compiler=lambda part: part, recorder=lambda step, plan: step)
    made = GraphRunner(model, 64) if device == "cuda" else GraphRunner(model, 64, compiler=TRACED)
    for start in range(0, 60, 5):
        rows = (0, 1) if start % 2 else (0,)
        spans = [
            Span(range(9 + start, 14 + start), start, range(4 * row, 4 * row + 4), None, 3, bias=bias) for row in rows
        ]
        for found, wanted in zip(made.step(spans), plain.step(spans), strict=True):
            assert (found.float() - wanted.float()).norm() < 0.02 * wanted.float().norm()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == PARTS * SHAPES
    [found], [wanted] = (runner.step([Span(range(9, 49), 0, range(9))]) for runner in (made, plain))
    assert (found.float() - wanted.float()).norm() < 0.02 * wanted.float().norm()
    matrices = {(part.rows, part.cols) for part in model.modules() if isinstance(part, UnpackedLinear)}
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == PARTS * SHAPES + len(matrices)


main(*sys.argv[1:])
