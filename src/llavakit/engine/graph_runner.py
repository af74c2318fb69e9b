"""Models on a GPU: the tokens of answers go through a step of fixed shapes, replayed as one graph."""

# A step splits in two. Prompts, and whatever has picture features, are large and of any length: they go through the
# model one by one, where the GPU is busy enough to hide Python. Tokens of answers, drafts included, are rows of one
# plan, padded to the next size of the ladder:
#
#   token  position  place  later   blocks
#     17       40      38     20    2  3  9  z    a sequence's next token; later layers keep fewer of its visual tokens
#    301       12      12     12    4  z  z  z    another's, and its draft: same blocks, next place
#      9       13      13     13    4  z  z  z
#      0        0       0      0    z  z  z  z    padding, in a block of its own

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llavakit.anyres import Size
from llavakit.engine.block_storage import OneSequence, slots
from llavakit.engine.blocks import BLOCK, num_blocks_for
from llavakit.engine.fixed_storage import FixedStorage
from llavakit.engine.recorded import CudaGraphs, Recorded, Recorder, Step
from llavakit.engine.runner import LONGEST_ROW, Seen, Span, bias_of, drop_in, embed, see
from llavakit.engine.torch_language import HEADER, TorchLanguage
from llavakit.model import Llava
from llavakit.model.drop import Drop
from llavakit.model.footprint import cache_bytes
from llavakit.quantize.linear import PackedMatrix
from llavakit.quantize.unpacked import write_out

LADDER = (1, 2, 4, 8, 16, 32, 64)  # rows of a plan
FEWEST_BLOCKS = 16  # of a plan, 256 tokens; more go in powers of two, up to the whole context


class Language(Protocol):
    """How the language model is computed, with keys and values in a storage of its own."""

    @property
    def decode_bytes(self) -> int:
        """Bytes of the weights that a decoded token reads."""

    def rows(self, plan: Int[Tensor, "rows numbers"]) -> Float[Tensor, "rows vocab"]:
        """The scores behind each token of a plan, computed and kept."""

    def prompt(
        self,
        embeds: Float[Tensor, "1 seq dim"],
        positions: Int[Tensor, "1 seq"],
        cache: OneSequence,
        bias: Float[Tensor, "1 seq"] | None,
        drop: Drop | None,
        num_logits: int,
    ) -> Float[Tensor, "num_logits vocab"]:
        """The scores behind the last tokens of one sequence, all of them computed and kept but for what is dropped."""


class GraphRunner:
    """Takes a model over: on a CUDA device its language model is rewritten, so that no weight is there twice.

    `num_blocks` is all the memory it will ever have for keys and values. `recorder` says what becomes of the step for
    rows; by default it is recorded on a CUDA device, and elsewhere it is computed as it is.
    """

    def __init__(self, model: Llava, num_blocks: int, *, recorder: Recorder | None = None) -> None:
        self._model, self._device = model, model.language.norm.weight.device
        with self._here():
            self._take_over(model, num_blocks, recorder)

    def _here(self) -> AbstractContextManager[None]:
        """Kernels and graphs are launched on the device that is the current one."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _take_over(self, model: Llava, num_blocks: int, recorder: Recorder | None) -> None:
        weight, config = model.language.norm.weight, model.config.language
        self._widest = num_blocks_for(config.max_positions)
        is_cuda = weight.device.type == "cuda"
        is_packed = any(isinstance(part, PackedMatrix) for part in model.modules())
        dtype = torch.bfloat16 if is_cuda and is_packed else weight.dtype
        if is_packed:
            write_out(model.vision, dtype)
            write_out(model.projector, dtype)
        self._storage = FixedStorage(
            config, num_blocks, dtype=dtype, device=weight.device, has_bias=model.config.condensing is not None
        )
        self._language = language_on(model, self._storage, dtype)
        recorder = CudaGraphs(weight.device) if recorder is None and is_cuda else recorder
        self._rows: Step = self._language.rows if recorder is None else Recorded(self._language.rows, recorder)

    @property
    def decode_bytes(self) -> int:
        """Bytes of the weights that a decoded token reads."""
        return self._language.decode_bytes

    @torch.inference_mode()
    def step(self, spans: Sequence[Span]) -> list[Float[Tensor, "num_logits vocab"]]:
        """Scores come to the CPU at once for all rows, and only those that are wanted."""
        for span in spans:
            self._storage.reserve(max(span.blocks) + 1)
        apart = [index for index, span in enumerate(spans) if is_row(span)]
        with self._here():
            if self._storage.bias is not None:
                self._put_bias([spans[index] for index in apart])
            logits = dict(zip(apart, self._tokens([spans[index] for index in apart]), strict=True))
            return [logits[index] if index in logits else self._prompt(span) for index, span in enumerate(spans)]

    @torch.inference_mode()
    def encode(self, pixels: Float[Tensor, "views 3 size size"], size: Size) -> Seen:
        seen = see(self._model, self._model.see, pixels, size)
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)  # or the work would be timed as prefill
        return seen

    @torch.inference_mode()
    def copy(self, source: int, target: int) -> None:
        self._storage.copy(source, target)

    def _tokens(self, spans: Sequence[Span]) -> Sequence[Float[Tensor, "_ vocab"]]:
        """All tokens of these spans in plans of at most the ladder's last size, in order."""
        rows = [row for span in spans for row in self._plan_rows(span)]
        is_wanted = [row >= len(span.tokens) - span.num_logits for span in spans for row in range(len(span.tokens))]
        found = []
        for start in range(0, len(rows), LADDER[-1]):
            chunk, wanted = (some[start : start + LADDER[-1]] for some in (rows, is_wanted))
            logits = self._rows(self._plan(chunk))
            kept = [row for row, want in enumerate(wanted) if want]
            if len(kept) < len(chunk):
                logits = logits[torch.tensor(kept, dtype=torch.long, device=self._device)]
            found.append(to_host(logits[: len(kept)]))  # before the next replay writes over them
        return torch.cat(found).split([span.num_logits for span in spans]) if found else []

    def _put_bias(self, spans: Sequence[Span]) -> None:
        """What is added to the attention to the new tokens, whatever stood in their slots."""
        for span in spans:
            new = slots(span.blocks, span.start + len(span.tokens), self._device)[span.start :]
            bias = bias_of(span, self._device)
            self._storage.put_bias(new, None if bias is None else bias[0])

    def _plan_rows(self, span: Span) -> list[list[int]]:
        numbers = zip(span.tokens, span.placed, strict=True)
        return [
            [token, position, place, place - span.num_dropped, *span.blocks[: num_blocks_for(place + 1)]]
            for place, (token, position) in enumerate(numbers, span.start)
        ]

    def _plan(self, rows: Sequence[list[int]]) -> Tensor:
        count = next(size for size in LADDER if size >= len(rows))
        width = HEADER + num_blocks_in_plan(max(map(len, rows)) - HEADER, self._widest)
        padding = self._storage.padding_block
        filled = [row + [padding] * (width - len(row)) for row in rows]
        filled += [[0] * HEADER + [padding] * (width - HEADER)] * (count - len(rows))
        plan = torch.tensor(filled)
        return plan.pin_memory() if self._device.type == "cuda" else plan

    def _prompt(self, span: Span) -> Float[Tensor, "num_logits vocab"]:
        cache = OneSequence(self._storage, span.blocks, span.start, len(span.tokens))
        positions = torch.tensor([list(span.placed)], device=self._device)
        bias, drop = bias_of(span, self._device), drop_in(span, self._model, self._storage)
        return to_host(self._language.prompt(embed(self._model, span), positions, cache, bias, drop, span.num_logits))


def language_on(model: Llava, storage: FixedStorage, dtype: torch.dtype) -> Language:
    """In the kernels of a GPU where there is one, and in torch elsewhere."""
    drop_after = model.config.dropping.after_layer if model.config.dropping else None
    if storage.device.type != "cuda":
        return TorchLanguage(model.language, storage, drop_after=drop_after)
    from llavakit.engine.gpu_language import GpuLanguage  # no package for CPUs brings triton

    return GpuLanguage(model.language, storage, dtype=dtype, most_rows=LADDER[-1], drop_after=drop_after)


def reason_against(model: Llava, num_blocks: int) -> str | None:
    """Why a model on a CUDA device cannot be taken over, in words; None where it can.

    Its kernels need triton, which needs a C compiler to begin with, an Nvidia card of 2020 or newer, shapes that they
    divide, and room for all blocks of keys and values at once.
    """
    weight = model.language.norm.weight
    if torch.version.hip is not None or torch.cuda.get_device_capability(weight.device) < (8, 0):
        return "its kernels are for Nvidia cards of compute capability 8.0 or higher"
    try:
        from triton.runtime import driver

        from llavakit.engine.gpu_language import can_take

        _ = driver.active.utils  # compiled on the spot
    except Exception as error:  # whatever a compiler or its absence brings
        return f"its kernels cannot be compiled: {type(error).__name__}: {error}"
    if not can_take(model.language):
        return "its shapes, or its number formats, are none of those that the kernels read"
    needed = cache_bytes(model.config.language, num_blocks * BLOCK, 8 * weight.element_size())
    free = torch.cuda.mem_get_info(weight.device)[0]
    if needed > 0.9 * free:
        return f"{needed / 1e9:.1f} GB of keys and values do not fit into the {free / 1e9:.1f} GB that are free"
    return None


def to_host(logits: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows vocab"]:
    """Into memory that a GPU writes to by itself, which takes half the time of any other."""
    if logits.device.type != "cuda":
        return logits.to("cpu", copy=True)
    host = torch.empty_like(logits, device="cpu", pin_memory=True)
    host.copy_(logits, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    return host


def is_row(span: Span) -> bool:
    """Whether the tokens of a span are computed as rows: few of them, and no features of a picture."""
    return span.embeds is None and len(span.tokens) <= LONGEST_ROW


def num_blocks_in_plan(needed: int, widest: int) -> int:
    """The next width there is a graph for, in blocks of 16 tokens."""
    width = FEWEST_BLOCKS
    while width < needed:
        width *= 2
    return min(width, max(widest, needed))
