"""OpenVINO as a peer: a Llama graph of its own operations, int4 weights, activations quantised as it runs."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import openvino
from openvino import Core, Model, Type
from openvino import opset13 as ops

from llavakit.bench.peers.worker import Asked, serve

GROUP = 128


class OpenVino:
    def __init__(self, asked: Asked) -> None:
        self._language, vision = asked.shapes["language"], asked.shapes["vision"]
        core = Core()
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": asked.threads, "NUM_STREAMS": 1})
        settings = {
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(GROUP),
            "KV_CACHE_PRECISION": "f16",
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._weights = Weights()  # kept: the compiled graph reads them where they lie
        graph = decoder(self._language, self._weights)
        self._decoder = core.compile_model(graph, "CPU", settings).create_infer_request()
        graph = tower(vision, self._language["hidden_size"])
        self._tower = core.compile_model(graph, "CPU").create_infer_request()
        self._lengths: set[int] = set()  # of prompts that were read
        side = vision["image_size"]
        self._pixels = np.random.default_rng(0).standard_normal((1, 3, side, side)).astype(np.float32)
        self.about: dict[str, Any] = {
            "version": openvino.__version__,
            "weights": f"int4 symmetric in groups of {GROUP}, output head int8, tower float16",
            "notes": [
                "its weights are in memory as given and as compiled; what is not in int8 is computed in bfloat16",
                "a prompt of each length is read once before, untimed: the first makes kernels for its length",
            ],
        }

    def encode(self) -> None:
        self._tower.infer({0: self._pixels})

    def prefill(self, tokens: int, start: int) -> float:
        if tokens not in self._lengths:
            self._lengths.add(tokens)
            self.prefill(tokens, start)
        self._remember(start)
        begun = perf_counter()
        self._step(tokens, start, beam=[0])
        return perf_counter() - begun

    def decode(self, steps: int, start: int, batch: int) -> float:
        self._remember(start)
        self._step(1, start, beam=[0] * batch)  # all of them go on from what is remembered
        begun = perf_counter()
        for step in range(steps):
            self._step(1, start + 1 + step, beam=list(range(batch)))
        return perf_counter() - begun

    def _remember(self, length: int) -> None:
        """Keys and values of so many tokens; what they are does not matter."""
        self._decoder.reset_state()
        if length == 0:
            return
        shape = (1, self._language["num_kv_heads"], length, self._language["head_dim"])
        for state in self._decoder.query_state():
            state.state = openvino.Tensor(np.full(shape, 0.01, np.float32))

    def _step(self, count: int, start: int, *, beam: list[int]) -> None:
        tokens = np.full((len(beam), count), 7, np.int64)
        positions = np.tile(np.arange(start, start + count, dtype=np.int64), (len(beam), 1))
        self._decoder.infer({0: tokens, 1: positions, 2: np.array(beam, np.int32)})


class Weights:
    """Random numbers of any shape; no two matrices share memory, or reading them would cost too little."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._arrays: list[Any] = []  # a constant does not keep alive what it was made of

    def vector(self, size: int, value: float = 1.0) -> Any:
        return ops.constant(np.full(size, value, np.float32))

    def matrix(self, rows: int, cols: int, bits: int) -> Any:
        """[rows, cols] in integers of so many bits with a scale of 16 for each group of a row, as nncf writes them."""
        group = GROUP if bits == 4 and cols % GROUP == 0 else cols
        shape = [rows, cols // group, group]
        block = self._random.integers(0, 256, 1 << 16, np.uint8)
        stored = np.resize(block, rows * cols * bits // 8)
        kind = Type.i4 if bits == 4 else Type.i8
        self._arrays.append(stored)
        codes = ops.constant(openvino.Tensor(stored.view(np.uint8 if bits == 4 else np.int8), shape, kind))
        scales = ops.constant(np.full([rows, cols // group, 1], 0.002, np.float16))
        scaled = ops.multiply(ops.convert(codes, Type.f16), scales)
        return ops.convert(ops.reshape(scaled, ops.constant(np.array([rows, cols])), False), Type.f32)

    def wide(self, rows: int, cols: int) -> Any:
        """[rows, cols] in 16 bits."""
        block = (self._random.standard_normal(1 << 16) * 0.02).astype(np.float16)
        return ops.convert(ops.constant(np.resize(block, (rows, cols))), Type.f32)


def _times(x: Any, matrix: Any) -> Any:
    return ops.matmul(x, matrix, False, True)


def _numbers(*values: int) -> Any:
    return ops.constant(np.array(values, np.int64))


def decoder(language: dict[str, Any], weights: Weights) -> Model:
    """Ids and positions to the scores of the last token; keys and values are states of the model."""
    dim = language["hidden_size"]
    tokens = ops.parameter([-1, -1], Type.i64, "tokens")
    positions = ops.parameter([-1, -1], Type.i64, "positions")
    beam = ops.parameter([-1], Type.i32, "beam")
    x = ops.gather(weights.matrix(language["vocab_size"], dim, 8), tokens, ops.constant(0))
    cos, sin = _angles(positions, language)
    sinks: list[Any] = []
    for layer in range(language["num_layers"]):
        x = ops.add(x, _attention(_rms_norm(x, dim, weights), cos, sin, beam, tokens, layer, language, weights, sinks))
        x = ops.add(x, _mlp(_rms_norm(x, dim, weights), language, weights))
    last = ops.slice(_rms_norm(x, dim, weights), _numbers(-1), _numbers(2**31 - 1), _numbers(1), _numbers(1))
    logits = _times(last, weights.matrix(language["vocab_size"], dim, 8))
    return Model([ops.result(logits)], sinks, [tokens, positions, beam], "decoder")


def _rms_norm(x: Any, dim: int, weights: Weights) -> Any:
    mean = ops.reduce_mean(ops.power(x, ops.constant(np.float32(2))), _numbers(-1), True)
    root = ops.sqrt(ops.add(mean, ops.constant(np.float32(1e-6))))
    return ops.multiply(weights.vector(dim), ops.multiply(x, ops.divide(ops.constant(np.float32(1)), root)))


def _angles(positions: Any, language: dict[str, Any]) -> tuple[Any, Any]:
    half = language["head_dim"] // 2
    turns = language["rope_theta"] ** (-np.arange(half, dtype=np.float32) / half)
    wide = ops.convert(ops.unsqueeze(positions, _numbers(-1)), Type.f32)
    angles = ops.multiply(wide, ops.constant(turns.reshape(1, 1, half).astype(np.float32)))
    angles = ops.unsqueeze(ops.concat([angles, angles], -1), _numbers(1))
    return ops.cos(angles), ops.sin(angles)


def _rotate(x: Any, cos: Any, sin: Any, head_dim: int) -> Any:
    halves = ops.split(x, ops.constant(-1), 2)
    turned = ops.concat([ops.multiply(halves.output(1), ops.constant(np.float32(-1))), halves.output(0)], -1)
    return ops.add(ops.multiply(x, cos), ops.multiply(turned, sin))


def _attention(
    x: Any, cos: Any, sin: Any, beam: Any, tokens: Any, layer: int, language: dict[str, Any], weights: Weights,
    sinks: list[Any],
) -> Any:  # fmt: skip
    heads, kv_heads, head_dim = language["num_heads"], language["num_kv_heads"], language["head_dim"]
    dim = language["hidden_size"]
    query, key, value = (
        _in_heads(_times(x, weights.matrix(count * head_dim, dim, 4)), count, head_dim)
        for count in (heads, kv_heads, kv_heads)
    )
    query, key = _rotate(query, cos, sin, head_dim), _rotate(key, cos, sin, head_dim)
    key = _remembered(key, f"keys.{layer}", beam, tokens, kv_heads, head_dim, sinks)
    value = _remembered(value, f"values.{layer}", beam, tokens, kv_heads, head_dim, sinks)
    mixed = ops.scaled_dot_product_attention(query, key, value, _mask(tokens, key), causal=False)
    flat = ops.reshape(ops.transpose(mixed, _numbers(0, 2, 1, 3)), _numbers(0, 0, heads * head_dim), True)
    return _times(flat, weights.matrix(dim, heads * head_dim, 4))


def _in_heads(x: Any, heads: int, head_dim: int) -> Any:
    return ops.transpose(ops.reshape(x, _numbers(0, 0, heads, head_dim), True), _numbers(0, 2, 1, 3))


def _remembered(new: Any, name: str, beam: Any, tokens: Any, heads: int, head_dim: int, sinks: list[Any]) -> Any:
    """What was kept, in the order that `beam` names, with the new ones behind it; which is kept in turn."""
    batch = ops.gather(ops.shape_of(tokens), _numbers(0), ops.constant(0))
    empty = ops.broadcast(
        ops.constant(np.float32(0)), ops.concat([batch, _numbers(heads), _numbers(0), _numbers(head_dim)], 0)
    )
    kept = ops.read_value(empty, name, Type.f32, openvino.PartialShape([-1, heads, -1, head_dim]))
    all_of_it = ops.concat([ops.gather(kept, beam, ops.constant(0)), new], 2)
    sinks.append(ops.assign(all_of_it, name))
    return all_of_it


def _mask(tokens: Any, key: Any) -> Any:
    """Minus infinity where a token would look at a later one."""
    new = ops.gather(ops.shape_of(tokens), ops.constant(1), ops.constant(0))
    whole = ops.gather(ops.shape_of(key), ops.constant(2), ops.constant(0))
    one, zero = ops.constant(np.int64(1)), ops.constant(np.int64(0))
    seen = ops.range(zero, whole, one, "i64")
    own = ops.range(ops.subtract(whole, new), whole, one, "i64")
    later = ops.greater(ops.unsqueeze(seen, _numbers(0)), ops.unsqueeze(own, _numbers(1)))
    mask = ops.select(later, ops.constant(np.float32(-65504)), ops.constant(np.float32(0)))
    return ops.unsqueeze(mask, _numbers(0, 1))


def _mlp(x: Any, language: dict[str, Any], weights: Weights) -> Any:
    dim, inner = language["hidden_size"], language["intermediate_size"]
    gate = ops.swish(_times(x, weights.matrix(inner, dim, 4)))
    return _times(ops.multiply(gate, _times(x, weights.matrix(inner, dim, 4))), weights.matrix(dim, inner, 4))


def tower(vision: dict[str, Any], dim: int) -> Model:
    """Pixels to embeddings: the layers that LLaVA reads, and the projector."""
    weights, width, patch = Weights(), vision["hidden_size"], vision["patch_size"]
    side = vision["image_size"]
    patches = (side // patch) ** 2
    pixels = ops.parameter([1, 3, side, side], Type.f32, "pixels")
    kernel = ops.reshape(weights.wide(width, 3 * patch * patch), _numbers(width, 3, patch, patch), False)
    cut = ops.convolution(pixels, kernel, [patch, patch], [0, 0], [0, 0], [1, 1])
    x = ops.transpose(ops.reshape(cut, _numbers(1, width, patches), False), _numbers(0, 2, 1))
    x = ops.concat([ops.constant(np.zeros((1, 1, width), np.float32)), x], 1)
    x = _layer_norm(x, width, weights)
    for _ in range(vision["num_layers"] + 1 + vision["feature_layer"]):
        x = ops.add(x, _seeing(_layer_norm(x, width, weights), vision, weights))
        inner = ops.add(
            _times(_layer_norm(x, width, weights), weights.wide(vision["intermediate_size"], width)),
            weights.vector(vision["intermediate_size"], 0.01),
        )
        quick = ops.multiply(inner, ops.sigmoid(ops.multiply(inner, ops.constant(np.float32(1.702)))))
        x = ops.add(x, ops.add(_times(quick, weights.wide(width, vision["intermediate_size"])), weights.vector(width)))
    x = ops.slice(x, _numbers(1), _numbers(2**31 - 1), _numbers(1), _numbers(1))
    x = ops.gelu(_times(x, weights.wide(dim, width)), "erf")
    return Model([ops.result(_times(x, weights.wide(dim, dim)))], [pixels], "tower")


def _layer_norm(x: Any, width: int, weights: Weights) -> Any:
    normed = ops.mvn(x, _numbers(-1), True, 1e-5, "INSIDE_SQRT")
    return ops.add(ops.multiply(normed, weights.vector(width)), weights.vector(width, 0.01))


def _seeing(x: Any, vision: dict[str, Any], weights: Weights) -> Any:
    width, heads = vision["hidden_size"], vision["num_heads"]
    query, key, value = (
        _in_heads(ops.add(_times(x, weights.wide(width, width)), weights.vector(width, 0.01)), heads, width // heads)
        for _ in range(3)
    )
    mixed = ops.scaled_dot_product_attention(query, key, value, causal=False)
    flat = ops.reshape(ops.transpose(mixed, _numbers(0, 2, 1, 3)), _numbers(0, 0, width), True)
    return ops.add(_times(flat, weights.wide(width, width)), weights.vector(width, 0.01))


if __name__ == "__main__":
    serve(OpenVino)
