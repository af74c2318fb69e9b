"""Models on a CPU whose native graphs there are: each step of the engine is one native call."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from llavakit.anyres import Size
from llavakit.engine.block_storage import slots
from llavakit.engine.blocks import BLOCK
from llavakit.engine.runner import Seen, Span, see
from llavakit.kernels.graph import Dropping, KeysValues
from llavakit.model import Images, Llava
from llavakit.quantize.native import NativeKind, native_decoder, native_tower, native_tower_kind

FIRST_BLOCKS = 64  # 1,024 tokens; room doubles when it is needed


class NativeRunner:
    """Sequences together in one ragged batch. A sequence's scores are, to the last bit, those it would have alone."""

    def __init__(self, model: Llava, kind: NativeKind, *, kept_as: KeysValues = "float16") -> None:
        """`kind` is the model's `native_kind`; keys and values are `kept_as` these numbers.

        A tower that the kernels do not fit is computed by torch.
        """
        self._model = model
        self._decoder, tower_kind = native_decoder(model.language, kind), native_tower_kind(model)
        self._tower = None if tower_kind is None else native_tower(model.vision, tower_kind)
        self._kept_as = kept_as
        self._cache = self._decoder.new_cache(FIRST_BLOCKS, kept_as)
        self._bias: Float[Tensor, "blocks 16"] | None = None  # of the attention to each; made when the first comes

    @torch.inference_mode()
    def step(self, spans: Sequence[Span]) -> list[Float[Tensor, "num_logits vocab"]]:
        self._make_room(max(max(span.blocks) for span in spans))
        self._put_bias(spans)
        width = max(len(span.blocks) for span in spans)
        ends = list(accumulate(len(span.tokens) for span in spans))
        wanted = [
            row for span, end in zip(spans, ends, strict=True) for row in range(end - span.num_logits, end)
        ]  # of each its last ones
        embeds = [span.embeds for span in spans if span.embeds is not None]
        logits = self._decoder.step(
            _ints([token for span in spans for token in self._tokens(span)]),
            _ints([position for span in spans for position in span.placed]),
            _ints([0, *ends]),
            _ints([span.start for span in spans]),
            torch.tensor([[*span.blocks, *[0] * (width - len(span.blocks))] for span in spans], dtype=torch.int32),
            self._cache,
            _ints(wanted),
            torch.cat(embeds).float() if embeds else None,
            self._bias,
            dropping=self._dropping(spans),
        )
        return list(logits.split([span.num_logits for span in spans]))

    @torch.inference_mode()
    def encode(self, pixels: Float[Tensor, "views 3 size size"], size: Size) -> Seen:
        return see(self._model, self._look, pixels, size)

    @torch.inference_mode()
    def copy(self, source: int, target: int) -> None:
        self._make_room(max(source, target))
        self._cache[:, target] = self._cache[:, source]
        if self._bias is not None:
            self._bias[target] = self._bias[source]

    def _look(self, pixels: Float[Tensor, "views 3 size size"]) -> Images:
        fewer, tower = self._model.config.condensing, self._model.vision
        asks = fewer is not None and fewer.method == "attention"
        if self._tower is None or (asks and not tower.config.class_token):
            return self._model.see(pixels)  # the native tower tells how a class vector looks, and nobody else
        x = tower.embeddings(pixels)
        x = x if tower.pre_layrnorm is None else tower.pre_layrnorm(x)
        if asks:
            states, looks = self._tower.run_looking(x.float())
            attention = tower.shares(looks.mean(2))
        else:
            states, attention = self._tower.run(x.float()), None
        return self._model.seen(states[:, -tower.config.num_features :].to(x.dtype), attention)

    def _dropping(self, spans: Sequence[Span]) -> Dropping | None:
        if (fewer := self._model.config.dropping) is None:
            return None
        starts = accumulate((len(span.tokens) for span in spans), initial=0)
        pictures = [
            (row + first, row + end, kept)
            for row, span in zip(starts, spans, strict=False)
            for first, end, kept in span.pictures
        ]
        cached = _ints([span.start - span.num_dropped for span in spans])
        return Dropping(fewer.after_layer, cached, torch.tensor(pictures, dtype=torch.int32).reshape(len(pictures), 3))

    def _tokens(self, span: Span) -> Sequence[int]:
        if span.embeds is None:
            return span.tokens
        return [-1 if token == self._model.config.tokens.image else token for token in span.tokens]

    def _make_room(self, block: int) -> None:
        known = self._cache.shape[1]
        if block < known:
            return
        larger = self._decoder.new_cache(max(block + 1, 2 * known), self._kept_as)
        larger[:, :known] = self._cache
        self._cache = larger
        if self._bias is not None:
            self._bias = torch.nn.functional.pad(self._bias, (0, 0, 0, larger.shape[1] - known))

    def _put_bias(self, spans: Sequence[Span]) -> None:
        """What is added to the attention to the new tokens: nothing where nothing was given, whatever stood there."""
        if self._bias is None:
            if all(span.bias is None for span in spans):
                return
            self._bias = torch.zeros(self._cache.shape[1], BLOCK)
        for span in spans:
            new = slots(span.blocks, span.start + len(span.tokens), self._bias.device)[span.start :]
            self._bias.view(-1)[new] = torch.tensor(span.bias) if span.bias is not None else 0.0


def _ints(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)
