"""A model measured through the runner that the engine takes for it: a real one anywhere, shapes on an accelerator."""

from __future__ import annotations

import torch

from llavakit.bench.packed_subject import random_packed
from llavakit.bench.shapes import FLOATS, random_model
from llavakit.config import LlavaConfig
from llavakit.engine.blocks import num_blocks_for
from llavakit.engine.engine import runner_for
from llavakit.engine.graph_runner import GraphRunner
from llavakit.engine.runner import Runner, Span
from llavakit.kernels.graph import KeysValues
from llavakit.model import Llava
from llavakit.quantize.apply import make_room
from llavakit.quantize.linear import PackedMatrix, output_matrix
from llavakit.quantize.native import native_kind
from llavakit.quantize.schemes import SCHEMES


def random_quantised(config: LlavaConfig, scheme: str, device: str = "cpu") -> Llava:
    """Random weights by a scheme of `llava quantize` or in a number format."""
    if scheme in FLOATS:
        return random_model(config, dtype=getattr(torch, scheme), device=device)
    model = random_model(config, dtype=torch.bfloat16, device=device)
    for place in make_room(model, SCHEMES[scheme]).values():
        place.packed = random_packed(place.rows, place.cols, place.grid).data.to(device)
    return model


class RunnerSubject:
    """Scores come back to the CPU in each step, as the engine needs them, and so nothing runs ahead of the clock.

    There is room for so many conversations of `length` tokens.
    """

    def __init__(
        self,
        model: Llava,
        *,
        conversations: int,
        length: int,
        runner: Runner | None = None,
        kv_cache: KeysValues | None = None,
    ) -> None:
        config = model.config
        self._in_16_bits = native_kind(model) in ("float16", "bfloat16")
        self._blocks, self._language = num_blocks_for(length), model.language
        self._runner = runner or runner_for(model, conversations * self._blocks, is_compiled=True, kv_cache=kv_cache)
        generator = torch.Generator().manual_seed(0)
        size = config.vision.image_size
        self._pixels, self._size = torch.randn(1, 3, size, size, generator=generator), (size, size)
        ids = torch.randint(config.language.vocab_size, (config.language.max_positions,), generator=generator)
        self._tokens: list[int] = ids.tolist()
        self._read: set[tuple[int, int]] = set()

    def encode(self) -> None:
        self._runner.encode(self._pixels, self._size)

    def prefill(self, tokens: int, start: int) -> None:
        self._step(1, start, tokens)

    def decode(self, steps: int, start: int, batch: int) -> None:
        if batch > 1 and (batch, start) not in self._read:  # memory that nobody wrote is quicker to read than any other
            self._step(batch, 0, start)
            self._read.add((batch, start))
        for step in range(steps):
            self._step(batch, start + step, 1)

    def _step(self, batch: int, start: int, count: int) -> None:
        tokens = self._tokens[start : start + count]
        tables = [range(row * self._blocks, (row + 1) * self._blocks) for row in range(batch)]
        for logits in self._runner.step([Span(tokens, start, table) for table in tables]):
            logits.cpu()

    def take_parts(self) -> dict[str, float]:
        return {}

    @property
    def decode_bytes(self) -> int:
        """As the weights lie on the device."""
        if isinstance(self._runner, GraphRunner):
            return self._runner.decode_bytes
        total = 0
        for part in [*self._language.layers.modules(), self._language.norm, output_matrix(self._language)]:
            if isinstance(part, PackedMatrix):
                total += part.packed.nbytes
            else:
                numbers = part.parameters(recurse=False)
                total += sum(2 * weight.numel() if self._in_16_bits else weight.nbytes for weight in numbers)
        return total
