"""Answers as they are made: equal to `reference`, token for token, but nothing is computed twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress, islice
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor

from llavakit.anyres import Size, num_views, token_positions
from llavakit.checkpoint.load import Loaded
from llavakit.engine.answer_text import AnswerText
from llavakit.engine.computed import Computed
from llavakit.engine.image_cache import ImageCache, picture_digest
from llavakit.engine.prefix_cache import Key, num_reusable, prefix_keys
from llavakit.engine.request import Completion, Event, Timings
from llavakit.engine.sampling import SamplingParams, forbidden_tokens, sample
from llavakit.model import Images
from llavakit.processing.conversation import Conversation
from llavakit.processing.jinja import JinjaTemplate
from llavakit.processing.processor import Inputs

IMAGE_CACHE_BYTES = 256 * 2**20
GREEDY = SamplingParams()


class Engine:
    """Talks for one model.

    Between requests it keeps the keys and values of the last sequence and the features of the pictures seen, and
    takes from them whatever a new conversation shares with the old one: a second question, a retry or a cleared chat
    need no call of their own. Closing a stream half-way is allowed. While one stream is open another may start; it
    finds nothing kept, but its answer is the same.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._model, self._config, self._tokenizer = loaded.model, loaded.config, loaded.tokenizer
        self._processor = loaded.processor
        self._forbidden = forbidden_tokens(loaded.config, loaded.tokenizer.size)
        self._image_cache = ImageCache(IMAGE_CACHE_BYTES)
        self._computed: Computed | None = None

    def generate(
        self,
        conversation: Conversation,
        params: SamplingParams = GREEDY,
        *,
        template: str | JinjaTemplate | None = None,
    ) -> Completion:
        """The whole answer to the last message; arguments and errors as in `stream`."""
        *_, last = self.stream(conversation, params, template=template)
        assert last.completion is not None
        return last.completion

    def stream(
        self,
        conversation: Conversation,
        params: SamplingParams = GREEDY,
        *,
        template: str | JinjaTemplate | None = None,
    ) -> Iterator[Event]:
        """The answer to the last message, piece by piece; the pieces joined are the completion's text.

        Raises ValueError, at the call, if there is no question to answer, if the template is unknown, or if the prompt
        does not fit the model's context.
        """
        started = perf_counter()
        if not conversation.messages or conversation.messages[-1].role != "user":
            raise ValueError("There is nothing to answer: the conversation has to end with a message of the user.")
        inputs = self._processor(conversation, template=template)
        self._check_length(inputs)
        text = AnswerText(self._tokenizer, inputs.answer, params.stop)
        return self._answer(inputs, params, text, started)

    def _nothing_computed(self) -> Computed:
        weight = self._model.language.norm.weight
        return Computed(self._config.language, dtype=weight.dtype, device=weight.device)

    def _positions(self, inputs: Inputs) -> list[int]:
        return token_positions(len(inputs.tokens), inputs.spans, self._config)

    def _check_length(self, inputs: Inputs) -> None:
        length, context = self._positions(inputs)[-1] + 1, self._config.language.max_positions
        num_image = (
            length - len(inputs.tokens) + _num_image_tokens(inputs)
        )  # pictures keep the positions of all patches
        if length >= context:
            raise ValueError(
                f"The prompt is {length} tokens long ({num_image} of them for pictures), but the context of this model "
                f"holds {context}, and one must be left for the answer. Ask a shorter question, or leave out pictures "
                "or earlier messages."
            )

    def _answer(self, inputs: Inputs, params: SamplingParams, text: AnswerText, started: float) -> Iterator[Event]:
        computed, self._computed = self._computed or self._nothing_computed(), None  # ours alone while we run
        timings, tokens, pieces = Timings(), list[int](), list[str]()
        room = min(params.max_tokens, self._config.language.max_positions - self._positions(inputs)[-1] - 1)
        try:
            for token in islice(self._tokens(computed, inputs, params, timings, started), room):
                tokens.append(token)
                pieces.append(text.put(token))
                if text.stopped:
                    break
                if pieces[-1]:
                    yield Event(pieces[-1])
        finally:
            self._computed = computed
        is_ended = len(tokens) < room
        last = pieces.pop() if text.stopped else text.finish(is_ended=is_ended)
        completion = Completion(
            text="".join(pieces) + last,
            prompt_tokens=tuple(inputs.tokens),
            tokens=tuple(tokens),
            image_tokens=_num_image_tokens(inputs),
            finish_reason="stop" if text.stopped or is_ended else "length",
            timings=timings,
        )
        yield Event(last, completion)

    def _tokens(
        self,
        computed: Computed,
        inputs: Inputs,
        params: SamplingParams,
        timings: Timings,
        started: float,
    ) -> Iterator[int]:
        """Tokens without end, but for an end token; each is computed only when the next one is asked for."""
        logits = self._prefill(computed, inputs, timings)
        history, generator = list(inputs.tokens), params.generator()
        position = self._positions(inputs)[-1]
        ends = {*self._config.tokens.ends, *inputs.answer.ends}
        token = sample(logits, params, generator, history)
        timings.first_token_ms = _ms_since(started)
        while token not in ends:
            yield token
            step = perf_counter()
            history.append(token)
            position += 1
            logits = self._compute(computed, [token], [token], [position], images=None)
            token = sample(logits, params, generator, history)
            timings.decode_ms += _ms_since(step)

    def _prefill(self, computed: Computed, inputs: Inputs, timings: Timings) -> Float[Tensor, " vocab"]:
        """Compute what is new in the prompt; returns the scores of the first token of the answer."""
        start = perf_counter()
        pictures = self._pictures(inputs)
        digests = [picture_digest(pixels, size, self._config.visual_tokens) for pixels, size in pictures]
        keys = prefix_keys(inputs.tokens, inputs.spans, digests)
        kept = num_reusable(computed.keys, keys, inputs.spans)
        computed.rewind(kept)
        new = [span[0] >= kept for span in inputs.spans]
        seen = [
            self._image_cache.get(digest, lambda pixels=pixels: self._encode(pixels))
            for digest, (pixels, _) in compress(zip(digests, pictures, strict=True), new)
        ]
        timings.cached_tokens, timings.encode_ms = kept, _ms_since(start)

        start = perf_counter()
        sizes = list(compress(inputs.sizes, new))
        images = Images.joined(seen, sizes) if seen else None
        logits = self._compute(computed, inputs.tokens[kept:], keys[kept:], self._positions(inputs)[kept:], images)
        timings.prefill_ms = _ms_since(start)
        return logits

    def _pictures(self, inputs: Inputs) -> list[tuple[Float[Tensor, "views 3 size size"], Size]]:
        """The views of each picture, and its size."""
        if inputs.pixels is None:
            return []
        config = self._config.for_pictures(len(inputs.sizes))
        counts = [num_views(*size, config) for size in inputs.sizes]
        return list(zip(inputs.pixels.split(counts), inputs.sizes, strict=True))

    @torch.inference_mode()
    def _encode(self, pixels: Float[Tensor, "views 3 size size"]) -> Images:
        """One picture at a time, so that its features never depend on its neighbours."""
        seen = self._model.see(pixels.to(self._model.vision.embeddings.patch_embedding.weight))
        if seen.features.device.type != "cpu":
            torch.accelerator.synchronize(seen.features.device)  # or the work would be timed as prefill
        return seen

    @torch.inference_mode()
    def _compute(
        self,
        computed: Computed,
        tokens: Sequence[int],
        keys: list[Key],
        positions: Sequence[int],
        images: Images | None,
    ) -> Float[Tensor, " vocab"]:
        """Put tokens behind those computed; returns the scores of the token that follows, forbidden ones at -inf."""
        computed.expect(keys)
        device = self._model.language.norm.weight.device
        row, places = torch.tensor([tokens], device=device), torch.tensor([positions], device=device)
        hidden = self._model(row, images, places, computed.cache)
        return self._model.language.logits(hidden[0, -1]).float().cpu().masked_fill(self._forbidden, -torch.inf)


def _num_image_tokens(inputs: Inputs) -> int:
    return sum(end - start for start, end in inputs.spans)


def _ms_since(start: float) -> float:
    return (perf_counter() - start) * 1000
