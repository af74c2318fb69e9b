"""A model of given shapes with random packed weights, run by the native graphs."""

from __future__ import annotations

from time import perf_counter

import torch
from torch import Tensor

from llavakit.config import LlavaConfig
from llavakit.kernels import matmul
from llavakit.kernels.graph import (
    BLOCK,
    PARTS,
    DecoderLayer,
    Dropping,
    KeysValues,
    Matrix,
    NativeDecoder,
    NativeTower,
    TowerLayer,
)
from llavakit.kernels.packed import Packed, packed_bytes, record_bytes
from llavakit.model.layers import rotary_frequencies
from llavakit.model.vision import VisionEmbeddings
from llavakit.quantize.schemes import Grid, Scheme


def random_packed(rows: int, cols: int, grid: Grid) -> Packed:
    """One random record, again and again: drawing billions of numbers would take minutes."""
    size, whole = record_bytes(grid.kind, grid.group), packed_bytes(rows, cols, grid.kind, grid.group)
    record = torch.randint(1, 256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    record[-64:] = torch.full((32,), 0.002, dtype=torch.float16).view(torch.uint8)
    return Packed(record.repeat(whole // size), rows, cols, grid.kind, grid.group)


class PackedSubject:
    """Each part in the numbers that `llava quantize` writes it in."""

    def __init__(self, config: LlavaConfig, scheme: Scheme, *, kv_cache: KeysValues = "float16") -> None:
        self._config, self._language, self._kv_cache = config, config.language, kv_cache
        self._embeddings = VisionEmbeddings(config.vision).requires_grad_(False)
        self._pixels = torch.randn(1, 3, config.vision.image_size, config.vision.image_size)
        self._tower, self._projector = _tower(config, scheme.tower), _projector(config, scheme.tower)
        self._packed: list[Packed] = []
        self._decoder = self._new_decoder(scheme)
        self._cache = self._new_cache(-(-self._language.max_positions // BLOCK))
        self._together: Tensor | None = None  # of several conversations
        self._seconds = torch.zeros(len(PARTS), dtype=torch.float64)

    def _new_cache(self, num_blocks: int) -> Tensor:
        return self._decoder.new_cache(num_blocks, self._kv_cache)

    def _new_decoder(self, scheme: Scheme) -> NativeDecoder:
        language = self._language
        dim, inner = language.hidden_size, language.intermediate_size
        heads, kv = language.num_heads * language.head_dim, language.num_kv_heads * language.head_dim

        def matrix(rows: int, cols: int) -> Matrix:
            self._packed.append(random_packed(rows, cols, scheme.language))
            return Matrix(self._packed[-1])

        layers = [
            DecoderLayer(
                torch.ones(dim), torch.ones(dim), matrix(heads, dim), matrix(kv, dim), matrix(kv, dim),
                matrix(dim, heads), matrix(inner, dim), matrix(inner, dim), matrix(dim, inner),
            )
            for _ in range(language.num_layers)
        ]  # fmt: skip
        embedding, head = (random_packed(language.vocab_size, dim, scheme.head) for _ in range(2))
        self._packed.append(head)
        frequencies = rotary_frequencies(language.head_dim, theta=language.rope_theta)
        angles = torch.arange(language.max_positions)[:, None] * frequencies
        return NativeDecoder(
            layers, num_heads=language.num_heads, num_kv_heads=language.num_kv_heads, head_dim=language.head_dim,
            eps=language.rms_norm_eps, norm=torch.ones(dim), embedding=embedding, head=head,
            cosine=angles.cos(), sine=angles.sin(),
        )  # fmt: skip

    @torch.inference_mode()
    def encode(self) -> None:
        features = self._tower.run(self._embeddings(self._pixels))[0, -self._config.vision.num_features :]
        for index, packed in enumerate(self._projector):
            features = matmul(packed, torch.nn.functional.gelu(features) if index else features)

    def prefill(self, tokens: int, start: int, dropping: Dropping | None = None) -> None:
        self._step(self._cache, tokens, start, 1, dropping)

    def decode(self, steps: int, start: int, batch: int) -> float:
        """The seconds of the steps alone: to touch the memory of new conversations costs more than they."""
        cache = self._cache
        if batch > 1:
            blocks = batch * -(-(start + steps) // BLOCK)
            if self._together is None or self._together.shape[1] != blocks:
                self._together = self._new_cache(blocks).zero_()
            cache = self._together
        began = perf_counter()
        for step in range(steps):
            self._step(cache, 1, start + step, batch)
        return perf_counter() - began

    def _step(self, cache: Tensor, count: int, start: int, batch: int, dropping: Dropping | None = None) -> None:
        blocks = cache.shape[1] // batch
        rows = torch.arange(batch * count, dtype=torch.int32)
        self._decoder.step(
            rows * 31 % self._language.vocab_size,
            (start + rows % count).int(),
            torch.arange(0, (batch + 1) * count, count, dtype=torch.int32),
            torch.full((batch,), start, dtype=torch.int32),
            torch.arange(batch * blocks, dtype=torch.int32).view(batch, blocks),
            cache,
            torch.arange(count - 1, batch * count, count, dtype=torch.int32),
            seconds=self._seconds,
            dropping=dropping,
        ).argmax(-1)

    def take_parts(self) -> dict[str, float]:
        parts = dict(zip(PARTS, self._seconds.tolist(), strict=True))
        self._seconds.zero_()
        return parts

    @property
    def decode_bytes(self) -> int:
        return sum(len(packed.data) for packed in self._packed)


def _tower(config: LlavaConfig, grid: Grid) -> NativeTower:
    vision = config.vision
    width, inner = vision.hidden_size, vision.intermediate_size

    def matrix(rows: int, cols: int) -> Matrix:
        return Matrix(random_packed(rows, cols, grid), torch.zeros(rows))

    layers = [
        TowerLayer(
            torch.ones(width), torch.zeros(width), torch.ones(width), torch.zeros(width), matrix(width, width),
            matrix(width, width), matrix(width, width), matrix(width, width),
            matrix(inner, width), matrix(width, inner),
        )
        for _ in range(vision.num_used_layers)
    ]  # fmt: skip
    return NativeTower(
        layers, dim=width, num_heads=vision.num_heads, eps=vision.layer_norm_eps, activation=vision.activation
    )


def _projector(config: LlavaConfig, grid: Grid) -> list[Packed]:
    width, dim = config.vision.hidden_size, config.language.hidden_size
    sizes = [(dim, width), (dim, dim)] if config.projector.kind == "mlp2x_gelu" else [(dim, width)]
    return [random_packed(rows, cols, grid) for rows, cols in sizes]
