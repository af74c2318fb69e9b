"""A model of given shapes measured through the runner that the engine takes for its device."""

from __future__ import annotations

import torch

from llavakit.bench.packed_subject import random_packed
from llavakit.bench.schemes import FLOATS
from llavakit.bench.shapes import random_model
from llavakit.config import LlavaConfig
from llavakit.engine.blocks import num_blocks_for
from llavakit.engine.engine import runner_for
from llavakit.engine.runner import Span
from llavakit.model import Llava
from llavakit.quantize.apply import make_room
from llavakit.quantize.linear import PackedMatrix
from llavakit.quantize.schemes import find_scheme
from llavakit.quantize.unpacked import UnpackedLinear


def random_quantised(config: LlavaConfig, scheme: str) -> Llava:
    """Random weights by a scheme or in a number format; raises ValueError for one that there is not."""
    if scheme in FLOATS:
        return random_model(config, dtype=getattr(torch, scheme))
    found = find_scheme(scheme)
    model = random_model(config, dtype=torch.bfloat16)
    for place in make_room(model, found).values():
        place.packed = random_packed(place.rows, place.cols, place.grid).data
    return model


class RunnerSubject:
    """Scores come back to the CPU in each step, as the engine needs them, and so nothing runs ahead of the clock."""

    def __init__(self, model: Llava, *, conversations: int = 1) -> None:
        config = model.config
        self._blocks = num_blocks_for(config.language.max_positions)
        self._runner, self._language = runner_for(model, conversations * self._blocks), model.language
        generator = torch.Generator().manual_seed(0)
        size = config.vision.image_size
        self._pixels, self._size = torch.randn(1, 3, size, size, generator=generator), (size, size)
        ids = torch.randint(config.language.vocab_size, (config.language.max_positions,), generator=generator)
        self._tokens: list[int] = ids.tolist()

    def encode(self) -> None:
        self._runner.encode(self._pixels, self._size)

    def prefill(self, tokens: int, start: int) -> None:
        self._runner.step([self._span(0, start, tokens)])

    def decode(self, steps: int, start: int, batch: int) -> None:
        for step in range(steps):
            self._runner.step([self._span(row, start + step, 1) for row in range(batch)])

    def _span(self, row: int, start: int, count: int) -> Span:
        table = range(row * self._blocks, (row + 1) * self._blocks)
        return Span(self._tokens[start : start + count], start, table)

    @property
    def decode_bytes(self) -> int:
        """As the weights lie on the device, so with what is read of a matrix in one of its two forms alone."""
        total = 0
        for part in [*self._language.layers.modules(), self._language.norm, self._language.lm_head]:
            if isinstance(part, PackedMatrix):
                total += part.packed.nbytes
            elif isinstance(part, UnpackedLinear):
                total += part.codes.nbytes + part.scales.nbytes + (0 if part.offsets is None else part.offsets.nbytes)
            elif part is not None:
                total += sum(weight.nbytes for weight in part.parameters(recurse=False))
        return total
