"""transformers as a peer: the model in bfloat16, eager, as it comes. All layers of the tower run, as they do there."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch
import transformers
from transformers import CLIPVisionConfig, CLIPVisionModel, DynamicCache, LlamaConfig, LlamaForCausalLM

from llavakit.bench.peers.worker import Asked, serve


class Transformers:
    def __init__(self, asked: Asked) -> None:
        torch.set_num_threads(asked.threads)
        torch.set_grad_enabled(False)
        self._device = asked.device
        vision, language = asked.shapes["vision"], asked.shapes["language"]
        self._vocab, width, dim = language["vocab_size"], vision["hidden_size"], language["hidden_size"]
        self._tower = _filled(
            CLIPVisionModel,
            CLIPVisionConfig(
                hidden_size=width,
                intermediate_size=vision["intermediate_size"],
                num_hidden_layers=vision["num_layers"],
                num_attention_heads=vision["num_heads"],
                image_size=vision["image_size"],
                patch_size=vision["patch_size"],
            ),
            asked.device,
        )
        self._projector = torch.nn.Sequential(
            torch.nn.Linear(width, dim), torch.nn.GELU(), torch.nn.Linear(dim, dim)
        ).to(asked.device, torch.bfloat16)
        self._language = _filled(
            LlamaForCausalLM,
            LlamaConfig(
                vocab_size=self._vocab,
                hidden_size=dim,
                intermediate_size=language["intermediate_size"],
                num_hidden_layers=language["num_layers"],
                num_attention_heads=language["num_heads"],
                num_key_value_heads=language["num_kv_heads"],
                head_dim=language["head_dim"],
                max_position_embeddings=language["max_positions"],
            ),
            asked.device,
        )
        self._pixels = torch.randn(1, 3, vision["image_size"], vision["image_size"], dtype=torch.bfloat16)
        self._pixels = self._pixels.to(asked.device)
        self._layer, self._cache = vision["feature_layer"], DynamicCache()
        self.about: dict[str, Any] = {
            "version": transformers.__version__,
            "torch": torch.__version__,
            "weights": "bfloat16",
            "notes": ["its load time is that of filling memory with random numbers: no file is read"],
        }

    def encode(self) -> None:
        states = self._tower(self._pixels, output_hidden_states=True).hidden_states
        self._projector(states[self._layer][:, 1:])
        if self._device != "cpu":
            torch.accelerator.synchronize(self._device)

    def prefill(self, tokens: int, start: int) -> None:
        if start == 0:
            self._cache = DynamicCache()
        self._cut(self._cache, start)
        self._step(self._cache, tokens, 1)

    def decode(self, steps: int, start: int, batch: int) -> float | None:
        self._cut(self._cache, start)
        cache = self._cache
        if batch > 1:
            cache = DynamicCache()
            for index, layer in enumerate(self._cache.layers):
                cache.update(layer.keys.repeat(batch, 1, 1, 1), layer.values.repeat(batch, 1, 1, 1), index)
        begun = perf_counter()
        for _ in range(steps):
            self._step(cache, 1, batch)
        return perf_counter() - begun

    def _step(self, cache: DynamicCache, count: int, batch: int) -> None:
        """Whoever generates looks at each token, and so waits for it."""
        tokens = torch.randint(self._vocab, (batch, count), device=self._device)
        self._language(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits.argmax(-1).tolist()

    def _cut(self, cache: DynamicCache, length: int) -> None:
        if (more := cache.get_seq_length() - length) > 0:
            cache.crop(-more)


def _filled(kind: type, config: Any, device: str) -> torch.nn.Module:
    """A model in bfloat16 whose memory is filled from one random block: billions of draws take minutes."""
    with torch.device("meta"):
        model = kind(config)
    model = model.to(torch.bfloat16).to_empty(device=device).eval()
    block = (torch.randn(1 << 20) * 0.02).to(device, torch.bfloat16)
    for weight in model.parameters():
        flat = weight.view(-1)
        for start in range(0, len(flat), len(block)):
            part = flat[start : start + len(block)]
            part.copy_(block[: len(part)])
    _buffers_again(model, kind, config)
    return model


def _buffers_again(model: torch.nn.Module, kind: type, config: Any) -> None:
    """Tables that are worked out and no weights: from a model of one layer, whose tables are the same."""
    small = type(config)(**config.to_dict() | {"num_hidden_layers": 1})
    tables = dict(kind(small).named_buffers())
    for name, buffer in model.named_buffers():
        buffer.copy_(tables[name])


if __name__ == "__main__":
    serve(Transformers)
