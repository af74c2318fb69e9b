"""Samples of different lengths into one rectangular batch, padded on the right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llavakit.model import Images

ROUND_TO = 16  # few different widths: each new shape makes oneDNN keep another kernel, gigabytes in a long run
IGNORE = -100  # the label of a token that is not learned


@dataclass(frozen=True)
class Sample:
    """One conversation, tokenised: `targets` marks the tokens to learn. `pixels` and `sizes` as in `Inputs`."""

    tokens: list[int]
    targets: list[bool]
    pixels: Float[Tensor, "views 3 size size"] | None = None
    sizes: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Batch:
    """Samples side by side. A label is the token that follows, where that is to be learned, and IGNORE elsewhere."""

    tokens: Int[Tensor, "batch seq"]
    labels: Int[Tensor, "batch seq"]
    images: Images | None

    @property
    def positions(self) -> Int[Tensor, "batch seq"]:
        """Each token's place; padding stands last, so that it moves nothing."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device).expand_as(self.tokens)

    @property
    def num_targets(self) -> int:
        """Labels that are learned."""
        return int((self.labels != IGNORE).sum())

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        images = replace(self.images, pixels=self.images.pixels.to(device)) if self.images else None
        return Batch(self.tokens.to(device), self.labels.to(device), images)


@dataclass(frozen=True)
class CaptionSample:
    """A picture, its caption, captions that are wrong in one detail, and for each patch the words for what it shows.

    `patch_words` has an index into `words` for each patch, or IGNORE.
    """

    pixels: Float[Tensor, "1 3 size size"]
    caption: list[int]
    foils: list[list[int]]
    words: list[list[int]]
    patch_words: list[int]


@dataclass(frozen=True)
class CaptionBatch:
    """Captions first, then all foils; `lengths` counts each text's tokens before the padding.

    `words` are those of all pictures, each once, and `patch_words` says which are a patch's own.
    """

    pixels: Float[Tensor, "batch 3 size size"]
    texts: Int[Tensor, "texts seq"]
    lengths: Int[Tensor, " texts"]
    words: Int[Tensor, "words seq"]
    word_lengths: Int[Tensor, " words"]
    patch_words: Int[Tensor, "batch patches"]

    @property
    def num_targets(self) -> int:
        """Caption tokens that have one before them."""
        return int(self.lengths[: len(self.pixels)].sum()) - len(self.pixels)

    def to(self, device: torch.device) -> CaptionBatch:
        """The same batch on another device."""
        return CaptionBatch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def pad_right(rows: Sequence[Sequence[int]], *, value: int) -> Int[Tensor, "rows seq"]:
    """Rows of ids as one rectangle, filled up with `value` to a multiple of ROUND_TO."""
    width = math.ceil(max(len(row) for row in rows) / ROUND_TO) * ROUND_TO
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def collate(samples: Sequence[Sample], *, pad: int) -> Batch:
    """One batch of samples of any lengths, with and without pictures."""
    tokens = pad_right([sample.tokens for sample in samples], value=pad)
    labels = pad_right([_labels(sample) for sample in samples], value=IGNORE)
    pixels = [sample.pixels for sample in samples if sample.pixels is not None]
    sizes = [size for sample in samples for size in sample.sizes]
    return Batch(tokens, labels, Images(torch.cat(pixels), sizes=sizes) if pixels else None)


def _labels(sample: Sample) -> list[int]:
    following = zip(sample.tokens[1:], sample.targets[1:], strict=True)
    return [token if target else IGNORE for token, target in following] + [IGNORE]


def collate_captions(samples: Sequence[CaptionSample], *, pad: int) -> CaptionBatch:
    """One batch of captioned pictures; each sample has the same number of foils."""
    texts = [sample.caption for sample in samples] + [foil for sample in samples for foil in sample.foils]
    known: dict[tuple[int, ...], int] = {}
    rows = []
    for sample in samples:
        places = [known.setdefault(tuple(words), len(known)) for words in sample.words]
        rows.append([IGNORE if index == IGNORE else places[index] for index in sample.patch_words])
    words = list(known) or [(pad,)]
    return CaptionBatch(
        torch.cat([sample.pixels for sample in samples]),
        pad_right(texts, value=pad),
        torch.tensor([len(text) for text in texts]),
        pad_right(words, value=pad),
        torch.tensor([len(text) for text in words]),
        torch.tensor(rows),
    )
