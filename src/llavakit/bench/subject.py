"""What is measured, whoever made it: a model that sees a picture, reads a prompt and speaks."""

from __future__ import annotations

from typing import Protocol

import torch

from llavakit.model import Images, KVCache, Llava


class Subject(Protocol):
    """A model in the three steps that take its time, one sequence kept between them."""

    def encode(self) -> None:
        """One picture, from pixels to embeddings."""

    def prefill(self, tokens: int, start: int) -> None:
        """So many tokens behind the first `start` ones, which were computed before, up to the next token's scores."""

    def decode(self, steps: int, start: int, batch: int) -> float | None:
        """So many tokens, one after the other, each of `batch` sequences that are `start` tokens long at first.

        Gives the seconds where making ready for so many sequences has to be left out of them.
        """

    def take_parts(self) -> dict[str, float]:
        """What each part of the language model took since the last call, in seconds; empty where nothing tells."""

    @property
    def decode_bytes(self) -> int:
        """Bytes of the weights that a decoded token reads."""


class TorchSubject:
    """The torch model, in the number format it has. Ids and pixels are random: speed does not depend on them."""

    def __init__(self, model: Llava) -> None:
        config = model.config
        self._model, self._language = model, config.language
        self._weight = model.language.output_weight
        generator = torch.Generator().manual_seed(0)
        size = config.vision.image_size
        self._pixels = torch.randn(1, 3, size, size, generator=generator).to(self._weight)
        self._tokens = torch.randint(config.language.vocab_size, (config.language.max_positions,), generator=generator)
        self._cache = self._room(1)

    def _room(self, batch: int, *, length: int = 0, capacity: int | None = None) -> KVCache:
        capacity = self._language.max_positions if capacity is None else capacity
        weight = self._weight
        cache = KVCache(self._language, capacity=capacity, batch=batch, dtype=weight.dtype, device=weight.device)
        cache.keys[..., :length, :] = 0  # what was in that memory might be slow to compute with
        cache.values[..., :length, :] = 0
        cache.advance(length)
        return cache

    @torch.inference_mode()
    def encode(self) -> None:
        self._model.encode_images(Images(pixels=self._pixels, sizes=[(self._pixels.shape[-1],) * 2]))

    @torch.inference_mode()
    def prefill(self, tokens: int, start: int) -> None:
        self._cache.truncate(start)
        self._step(self._cache, tokens)

    @torch.inference_mode()
    def decode(self, steps: int, start: int, batch: int) -> None:
        cache = self._cache if batch == 1 else self._room(batch, length=start, capacity=start + steps)
        cache.truncate(start)
        for _ in range(steps):
            self._step(cache, 1)

    def _step(self, cache: KVCache, count: int) -> None:
        batch, start = cache.keys.shape[1], cache.length
        tokens = self._tokens[start : start + count].expand(batch, -1)
        positions = torch.arange(start, start + count).expand(batch, -1)
        hidden = self._model(tokens, None, positions, cache)
        self._model.language.logits(hidden[:, -1]).argmax(-1)

    def take_parts(self) -> dict[str, float]:
        return {}

    @property
    def decode_bytes(self) -> int:
        language = self._model.language
        read = [*language.layers.parameters(), *language.norm.parameters(), language.output_weight]
        return sum(weight.numel() * weight.element_size() for weight in read)
