"""What the engine asks of whoever computes: one step of a ragged batch of sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from llavakit.anyres import PartlyKept, Size
from llavakit.engine.block_storage import BlockStorage, ManySequences, OneSequence, Storage
from llavakit.model import Images, Llava
from llavakit.model.drop import Drop
from llavakit.model.llava import merge

LONGEST_ROW = 16  # new tokens; longer spans are computed alone, since padding would cost more than a batch brings


@dataclass(frozen=True)
class Seen:
    """A picture as the language model reads it.

    `places` are the patches that the features are of, if not of all, and `bias` is added to the attention to them.
    """

    embeds: Float[Tensor, "image_tokens dim"]
    places: Sequence[int] | None = None
    bias: Sequence[float] | None = None

    @property
    def nbytes(self) -> int:
        return self.embeds.nbytes


@dataclass(frozen=True)
class Span:
    """New tokens of one sequence in a step.

    `start` is how many tokens of it there are already; `blocks` is the sequence's table, with room for all. `embeds`
    stand at the placeholders among the tokens. The scores behind the last `num_logits` tokens are wanted: none for a
    prompt that goes on, one as a rule, and one more for each draft to be verified. `positions` are given where they do
    not simply follow one another, because a picture has fewer features than patches, and `bias` where something is
    added to the attention to them, because a feature stands for several patches.

    In a model whose later layers do without some visual tokens, `pictures` are those among the tokens, counted from
    `start`: the last token chooses what stays of them. `num_dropped` of the tokens before `start` did not.
    """

    tokens: Sequence[int]
    start: int
    blocks: Sequence[int]
    embeds: Float[Tensor, "placeholders dim"] | None = None
    num_logits: int = 1
    positions: Sequence[int] | None = None
    bias: Sequence[float] | None = None
    pictures: Sequence[PartlyKept] = ()
    num_dropped: int = 0

    @property
    def num_staying(self) -> int:
        """How many of the tokens the later layers read."""
        return len(self.tokens) - sum(end - first - kept for first, end, kept in self.pictures)

    @property
    def placed(self) -> Sequence[int]:
        """The rotary position of each token."""
        return range(self.start, self.start + len(self.tokens)) if self.positions is None else self.positions


class Runner(Protocol):
    """Keeps keys and values in blocks of 16 tokens, numbered from 0, and knows nothing of requests."""

    def step(self, spans: Sequence[Span]) -> list[Float[Tensor, "_ vocab"]]:
        """Compute all spans, one of a sequence at most, and give the scores wanted of each."""

    def encode(self, pixels: Float[Tensor, "views 3 size size"], size: Size) -> Seen:
        """One picture of `size`, (width, height), as the language model reads it."""

    def copy(self, source: int, target: int) -> None:
        """Copy what stands in a block into another one."""


def see(model: Llava, look: Callable[[Tensor], Images], pixels: Tensor, size: Size) -> Seen:
    """The whole way of one picture; `look` turns pixels into features."""
    weight = model.vision.embeddings.patch_embedding.weight
    images = replace(look(pixels.to(weight)), sizes=[size])
    if images.fewer is None:
        return Seen(model.encode_images(images))
    places, bias = images.fewer.places.flatten().tolist(), images.fewer.bias
    return Seen(model.encode_images(images), places, None if bias is None else bias.flatten().tolist())


def embed(model: Llava, span: Span) -> Float[Tensor, "1 new dim"]:
    """What the language model reads of a span."""
    row = torch.tensor([span.tokens], device=model.language.norm.weight.device)
    if span.embeds is None:
        return model.language.embed(row)
    placeholders = row == model.config.tokens.image
    embeds = model.language.embed(row.masked_fill(placeholders, 0))  # not every vocabulary has a word for it
    return merge(embeds, at=placeholders, features=span.embeds)


def bias_of(span: Span, device: torch.device) -> Float[Tensor, "1 new"] | None:
    """What is added to the attention to the tokens of a span, if anything."""
    return None if span.bias is None else torch.tensor([list(span.bias)], device=device)


def drop_in(span: Span, model: Llava, storage: Storage) -> Drop | None:
    """What the later layers do without: their keys and values stand in the same blocks, fewer of them."""
    if (fewer := model.config.dropping) is None:
        return None
    later = OneSequence(storage, span.blocks, span.start - span.num_dropped, span.num_staying)
    return Drop(fewer.after_layer, span.pictures, cache=later)


class TorchRunner:
    """Any model on any device.

    On the CPU sequences are computed one after the other, so that a result is bit for bit that of a sequence alone.
    Elsewhere, or with `together`, the short spans go through the model as one padded batch.
    """

    def __init__(self, model: Llava, *, together: bool | None = None) -> None:
        weight = model.language.norm.weight
        self._model, self._device = model, weight.device
        self._together = self._device.type != "cpu" if together is None else together
        self._storage = BlockStorage(model.config.language, dtype=weight.dtype, device=weight.device)

    @torch.inference_mode()
    def step(self, spans: Sequence[Span]) -> list[Float[Tensor, "_ vocab"]]:
        short = [
            index
            for index, span in enumerate(spans)
            if self._together and len(span.tokens) <= LONGEST_ROW and not span.pictures
        ]
        logits: dict[int, Tensor] = {}
        if len(short) > 1:
            logits.update(zip(short, self._batch([spans[index] for index in short]), strict=True))
        return [logits[index] if index in logits else self._one(span) for index, span in enumerate(spans)]

    @torch.inference_mode()
    def encode(self, pixels: Float[Tensor, "views 3 size size"], size: Size) -> Seen:
        seen = see(self._model, self._model.see, pixels, size)
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)  # or the work would be timed as prefill
        return seen

    @torch.inference_mode()
    def copy(self, source: int, target: int) -> None:
        self._storage.copy(source, target)

    def _one(self, span: Span) -> Float[Tensor, "num_logits vocab"]:
        cache = OneSequence(self._storage, span.blocks, span.start, len(span.tokens))
        positions = torch.tensor([list(span.placed)], device=self._device)
        drop = drop_in(span, self._model, self._storage)
        hidden = self._model.language(embed(self._model, span), positions, cache, bias_of(span, self._device), drop)
        if span.num_logits == 1:
            return self._model.language.logits(hidden[0, -1])[None]
        return self._model.language.logits(hidden[0, span.num_staying - span.num_logits :])

    def _batch(self, spans: Sequence[Span]) -> Sequence[Float[Tensor, "_ vocab"]]:
        lengths = [len(span.tokens) for span in spans]
        starts = [span.start for span in spans]
        tables = [span.blocks for span in spans]
        cache, drop = ManySequences(self._storage, tables, starts, lengths), None
        if fewer := self._model.config.dropping:
            starts = [span.start - span.num_dropped for span in spans]
            drop = Drop(fewer.after_layer, cache=ManySequences(self._storage, tables, starts, lengths))
        embeds = torch.nn.utils.rnn.pad_sequence([embed(self._model, span)[0] for span in spans], batch_first=True)
        places = [torch.tensor(list(span.placed)) for span in spans]
        positions = torch.nn.utils.rnn.pad_sequence(places, batch_first=True).to(self._device)
        hidden = self._model.language(embeds, positions, cache, self._biases(spans), drop)
        counts = [span.num_logits for span in spans]
        rows = zip(hidden, lengths, counts, strict=True)
        wanted = torch.cat([row[length - count : length] for row, length, count in rows])
        return self._model.language.logits(wanted).split(counts)

    def _biases(self, spans: Sequence[Span]) -> Float[Tensor, "batch new"] | None:
        if all(span.bias is None for span in spans):
            return None
        rows = [torch.tensor(list(span.bias or [0.0] * len(span.tokens))) for span in spans]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self._device)
