"""What a job costs at least: the numbers it reads and the products it makes, from the shapes alone.

The lower limit of a time is then one division: by the bandwidth for a single token, which reads every weight once and
does next to nothing with it, and by the rate of products for a long prompt or a picture, where each weight that was
read is used hundreds of times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llavakit.bench.figures import rounded
from llavakit.config import LanguageConfig, LlavaConfig, VisionConfig
from llavakit.kernels.graph import KeysValues
from llavakit.model.footprint import cache_bytes


@dataclass(frozen=True)
class Matrix:
    """A product with a matrix of `rows` outputs and `cols` inputs, of which a model has `count`."""

    name: str
    rows: int
    cols: int
    count: int

    @property
    def weights(self) -> int:
        return self.rows * self.cols * self.count


def language_matrices(config: LanguageConfig) -> list[Matrix]:
    """Of the decoder, the output head last."""
    dim, layers = config.hidden_size, config.num_layers
    heads, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return [
        Matrix("q, k, v", heads + 2 * kv, dim, layers),
        Matrix("attention out", dim, heads, layers),
        Matrix("gate, up", 2 * config.intermediate_size, dim, layers),
        Matrix("down", dim, config.intermediate_size, layers),
        Matrix("output head", config.vocab_size, dim, 1),
    ]


def tower_matrices(config: LlavaConfig) -> list[Matrix]:
    """Of the layers of the tower that are computed, and of the projector."""
    vision, dim = config.vision, config.language.hidden_size
    width, layers = vision.hidden_size, vision.num_used_layers
    projector = [Matrix("projector, first", dim, width, 1)]
    if config.projector.kind == "mlp2x_gelu":
        projector.append(Matrix("projector, second", dim, dim, 1))
    return [
        Matrix("tower q, k, v", 3 * width, width, layers),
        Matrix("tower attention out", width, width, layers),
        Matrix("tower fc1", vision.intermediate_size, width, layers),
        Matrix("tower fc2", width, vision.intermediate_size, layers),
        *projector,
    ]


@dataclass(frozen=True)
class Work:
    """Bytes read from memory, and operations: a multiplication and an addition are two."""

    bytes: float
    operations: float

    def seconds(self, *, gigabytes_per_s: float, gigaoperations_per_s: float) -> float:
        """The lower limit: the slower of the two, were each done perfectly while the other is."""
        return max(self.bytes / gigabytes_per_s, self.operations / gigaoperations_per_s) / 1e9


def decode_work(
    config: LanguageConfig, *, context: int, weight_bytes: float, batch: int = 1, kv_cache: KeysValues | None = None
) -> Work:
    """One step of `batch` sequences, each `context` tokens long: all weights once, and everybody's keys and values."""
    weights = sum(matrix.weights for matrix in language_matrices(config))
    cache = cache_bytes(config, context, 8 if kv_cache == "int8" else 16) * batch
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * context * batch
    return Work(weight_bytes + cache, 2 * weights * batch + attention)


def prefill_work(config: LanguageConfig, *, tokens: int, start: int, weight_bytes: float) -> Work:
    """`tokens` behind `start` others; the head reads the last one only."""
    *layers, head = language_matrices(config)
    seen = tokens * start + tokens * (tokens + 1) // 2  # pairs of a token and one that it looks at
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * seen
    return Work(weight_bytes, 2 * tokens * sum(matrix.weights for matrix in layers) + 2 * head.weights + attention)


def encode_work(config: LlavaConfig, *, weight_bytes: float) -> Work:
    """One view through tower and projector."""
    vision = config.vision
    rows = vision.num_positions
    attention = 4 * vision.num_used_layers * vision.hidden_size * rows * rows
    patches = 2 * vision.num_patches * vision.hidden_size * 3 * vision.patch_size**2
    products = sum(2 * count * matrix.weights for matrix, count in _rows_of_tower(config, vision))
    return Work(weight_bytes, products + attention + patches)


def _rows_of_tower(config: LlavaConfig, vision: VisionConfig) -> Iterator[tuple[Matrix, int]]:
    for matrix in tower_matrices(config):
        yield matrix, vision.num_features if matrix.name.startswith("projector") else vision.num_positions


def works(
    config: LlavaConfig, *, first: int, second: int, weight_bytes: float, kv_cache: KeysValues | None = None
) -> dict[str, dict[str, float]]:
    """What every job of a conversation costs, as plain data, for anybody to divide by the ceilings of a machine.

    `first` and `second` are the lengths of two prompts, one behind the other; `weight_bytes` are those that a token
    reads. Of the tower a byte a weight is counted, which hardly matters: its time is that of its products.
    """
    language, tower = config.language, sum(matrix.weights for matrix in tower_matrices(config))
    jobs = {
        "encode": encode_work(config, weight_bytes=tower),
        "prefill": prefill_work(language, tokens=first, start=0, weight_bytes=weight_bytes),
        "decode": decode_work(language, context=first, weight_bytes=weight_bytes, kv_cache=kv_cache),
        "second": prefill_work(language, tokens=second, start=first, weight_bytes=weight_bytes),
    }
    return {
        name: {"gigabytes": rounded(work.bytes / 1e9), "gigaoperations": rounded(work.operations / 1e9)}
        for name, work in jobs.items()
    }
