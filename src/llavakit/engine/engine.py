"""Answers as they are made, for one or for many: equal to `reference`, token for token, but nothing is computed twice.

One step: the scheduler says who computes what, the runner computes it, each request draws its next token.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llavakit.anyres import Size, num_views, partly_kept, token_positions
from llavakit.checkpoint.load import Loaded
from llavakit.engine.answer_text import AnswerText
from llavakit.engine.answering import Request
from llavakit.engine.blocks import num_blocks_for
from llavakit.engine.graph_runner import GraphRunner, reason_against
from llavakit.engine.image_cache import ImageCache, picture_digest
from llavakit.engine.native_runner import NativeRunner
from llavakit.engine.prefix_cache import prefix_keys
from llavakit.engine.request import Completion, Event
from llavakit.engine.runner import Runner, Seen, Span, TorchRunner
from llavakit.engine.sampling import SamplingParams, forbidden_tokens, sample, sample_verifying
from llavakit.engine.scheduler import Scheduler, Sequence, Work
from llavakit.kernels import instruction_set
from llavakit.kernels.graph import KeysValues
from llavakit.model import Llava
from llavakit.processing.conversation import Conversation
from llavakit.processing.jinja import JinjaTemplate
from llavakit.processing.processor import Inputs
from llavakit.quantize.native import native_kind

IMAGE_CACHE_BYTES = 256 * 2**20
GREEDY = SamplingParams()


class Engine:
    """Talks for one model, with one reader by `generate` and `stream`, or with many by `submit` and `step`.

    Between requests it keeps the keys and values of what was said and the pictures seen, and takes from them whatever a
    new conversation shares with an old one: a second question, a retry or a cleared chat need no call of their own.
    Closing a stream half-way is allowed, and several may be open at a time. What goes wrong in one request ends it
    alone. An engine belongs to one thread.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        runner: Runner | None = None,
        max_sequences: int = 16,
        token_budget: int = 4096,
        cache_tokens: int | None = None,
        image_cache_bytes: int = IMAGE_CACHE_BYTES,
        is_compiled: bool = False,
        kv_cache: KeysValues | None = None,
    ) -> None:
        """`max_sequences` are answered at once, with up to `token_budget` tokens computed in a step.

        `cache_tokens` is for how many tokens there is room in all, those kept for later included; by default for one
        whole context. Memory is taken as it is needed. `is_compiled` is for CUDA devices and long use, and `kv_cache`
        for the native kernels, both as in `runner_for`.
        """
        self._config, self._tokenizer, self._processor = loaded.config, loaded.tokenizer, loaded.processor
        self._forbidden = forbidden_tokens(loaded.config, loaded.tokenizer.size)
        self._ends = frozenset(loaded.model.config.tokens.ends)
        self._image_cache = ImageCache(image_cache_bytes)
        cache_tokens = loaded.config.language.max_positions if cache_tokens is None else cache_tokens
        num_blocks = num_blocks_for(cache_tokens)
        self._scheduler = Scheduler(num_blocks=num_blocks, max_sequences=max_sequences, token_budget=token_budget)
        self._runner = runner or runner_for(loaded.model, num_blocks, is_compiled=is_compiled, kv_cache=kv_cache)
        self._requests: dict[Sequence, Request] = {}

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

        A piece is computed when it is asked for. Errors, at the call, as in `submit`; later, what went wrong.
        """
        return self._read(self._prepare(conversation, params, template, tenant=""))

    def submit(
        self,
        conversation: Conversation,
        params: SamplingParams = GREEDY,
        *,
        template: str | JinjaTemplate | None = None,
        tenant: str = "",
    ) -> Request:
        """Ask for an answer that comes as `step` is called; tenants share nothing of what is kept.

        Raises ValueError if there is no question to answer, if the template is unknown, if the prompt does not fit the
        model's context, or if prompt and answer could never fit into the engine's memory.
        """
        request = self._prepare(conversation, params, template, tenant)
        self._add(request)
        return request

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for anything."""
        return self._scheduler.is_idle

    def step(self) -> list[Request]:
        """Compute one step; returns the requests that have something new to read, or have come to their `error`."""
        works = self._scheduler.schedule()
        requests = [self._requests[work.sequence] for work in works]
        spans: list[tuple[Request, Work, Span]] = []
        for work, request in zip(works, requests, strict=True):
            with self._of(request):
                spans.append((request, work, self._span(work, request)))
        start = perf_counter()
        all_logits = self._compute(spans)
        elapsed_ms = _ms_since(start)
        for (request, work, _), logits in zip(spans, all_logits, strict=True):
            if logits is not None:
                with self._of(request):
                    self._finish(work, request, logits, elapsed_ms)
        return [request for request in requests if request.events or request.error is not None]

    def abort(self, request: Request) -> None:
        """Nobody wants this answer any more: what it used is free at once. Harmless once the request is over."""
        self._scheduler.remove(request.sequence)
        self._requests.pop(request.sequence, None)

    def check_integrity(self) -> None:
        """Assert that every block is free, kept or in use by exactly those who say so."""
        self._scheduler.check_integrity()
        assert self.is_idle == (not self._requests)

    def _read(self, request: Request) -> Iterator[Event]:
        self._add(request)
        try:
            while not request.is_over or request.events:
                while request.events:
                    yield request.events.popleft()
                if not request.is_over:
                    self.step()
            if request.error is not None:
                raise request.error
        finally:
            self.abort(request)

    def _add(self, request: Request) -> None:
        self._requests[request.sequence] = request
        self._scheduler.add(request.sequence)

    @contextmanager
    def _of(self, request: Request) -> Iterator[None]:
        """What goes wrong in here is the end of this request and of no other; a Ctrl-C reaches the caller too."""
        try:
            yield
        except BaseException as error:
            request.error = error
            self.abort(request)
            if not isinstance(error, Exception):
                raise

    def _compute(self, spans: Seq[tuple[Request, Work, Span]]) -> Seq[Float[Tensor, "num_logits vocab"] | None]:
        """The scores of each. Where all together fail they are computed one by one, to see whose fault it is."""
        if not spans:
            return []
        try:
            return self._runner.step([span for _, _, span in spans])
        except Exception:
            found: list[Tensor | None] = [None] * len(spans)
            for index, (request, _, span) in enumerate(spans):
                with self._of(request):
                    [found[index]] = self._runner.step([span])
            return found

    def _prepare(
        self, conversation: Conversation, params: SamplingParams, template: str | JinjaTemplate | None, tenant: str
    ) -> Request:
        started = perf_counter()
        if not conversation.messages or conversation.messages[-1].role != "user":
            raise ValueError("There is nothing to answer: the conversation has to end with a message of the user.")
        inputs = self._processor(conversation, template=template)
        positions = token_positions(len(inputs.tokens), inputs.spans, self._config)
        room = self._check_room(inputs, positions[-1] + 1)
        pictures = self._pictures(inputs)
        fewer = self._config.condensing
        digests = [picture_digest(pixels, size, fewer, tenant=tenant) for pixels, size in pictures]
        dropping = partly_kept(inputs.spans, inputs.sizes, self._config)
        sequence = Sequence(
            keys=prefix_keys(inputs.tokens, inputs.spans, digests),
            max_length=len(inputs.tokens) + min(params.max_tokens, room),
            tenant=tenant,
            alone_from=dropping[0][0] if dropping else None,  # what stays of a picture depends on the question
        )
        self._scheduler.check_room(sequence)
        return Request(
            inputs,
            params,
            AnswerText(self._tokenizer, inputs.answer, params.stop),
            ends=self._ends.union(inputs.answer.ends),
            placeholder=self._config.tokens.image,
            positions=positions,
            pictures=pictures,
            digests=digests,
            partly_kept=dropping,
            sequence=sequence,
            started=started,
        )

    def _check_room(self, inputs: Inputs, length: int) -> int:
        """How many tokens an answer may have behind a prompt of this length before the context ends."""
        context = self._config.language.max_positions
        # Pictures keep the positions of all patches.
        num_image = length - len(inputs.tokens) + sum(end - start for start, end in inputs.spans)
        if length >= context:
            raise ValueError(
                f"The prompt is {length} tokens long ({num_image} of them for pictures), but the context of this model "
                f"holds {context}, and one must be left for the answer. Ask a shorter question, or leave out pictures "
                "or earlier messages."
            )
        return context - length

    def _pictures(self, inputs: Inputs) -> list[tuple[Float[Tensor, "views 3 size size"], Size]]:
        """The views of each picture, and its size."""
        if inputs.pixels is None:
            return []
        config = self._config.for_pictures(len(inputs.sizes))
        counts = [num_views(*size, config) for size in inputs.sizes]
        return list(zip(inputs.pixels.split(counts), inputs.sizes, strict=True))

    def _span(self, work: Work, request: Request) -> Span:
        if work.end <= len(request.inputs.tokens) and not request.timings.steps and not request.timings.prefill_ms:
            request.timings.cached_tokens = work.start
        embeds = self._embeds(work, request)  # which may also place them
        end = work.end + len(work.drafts)
        if work.sequence.copy is not None:
            self._runner.copy(*work.sequence.copy)
        return Span(
            tokens=[*request.history[work.start : work.end], *work.drafts],
            positions=request.positions_of(work.start, end),
            start=work.start,
            blocks=work.sequence.blocks,
            embeds=embeds,
            num_logits=work.num_logits,
            bias=request.bias_of(work.start, end),
            pictures=request.dropping_from(work.start),
            num_dropped=request.num_dropped_before(work.start),
        )

    def _embeds(self, work: Work, request: Request) -> Float[Tensor, "placeholders dim"] | None:
        """What stands at the placeholders in [work.start, work.end): parts of the pictures that reach into it."""
        parts = []
        for index, (first, end) in enumerate(request.inputs.spans):
            if first < work.end and work.start < end:
                embeds = self._picture(index, request).embeds
                parts.append(embeds[max(work.start - first, 0) : work.end - first])
        return torch.cat(parts) if parts else None

    def _picture(self, index: int, request: Request) -> Seen:
        """One picture at a time, so that what is seen in it never depends on its neighbours."""
        if index not in request.embeds:
            start = perf_counter()
            encode = self._runner.encode
            request.embeds[index] = self._image_cache.get(
                request.digests[index], lambda: encode(*request.pictures[index])
            )
            request.place(index)
            request.timings.encode_ms += _ms_since(start)
        return request.embeds[index]

    def _finish(
        self, work: Work, request: Request, logits: Float[Tensor, "num_logits vocab"], elapsed_ms: float
    ) -> None:
        """Count what was computed, and draw the next token where it is due."""
        start = perf_counter()
        is_prefill = not request.timings.steps
        tokens: list[int] = []
        if work.num_logits:
            scores = logits.float().cpu().masked_fill(self._forbidden, -torch.inf)
            tokens = request.take(self._draw(scores, work, request), scores)
            request.embeds.clear()
        self._scheduler.advance(work, tokens)
        if request.completion is not None:
            self.abort(request)
        else:
            work.sequence.drafts = request.guess()
        elapsed_ms += _ms_since(start)
        if is_prefill:
            request.timings.prefill_ms += elapsed_ms
        else:
            request.timings.decode_ms += elapsed_ms

    @staticmethod
    def _draw(scores: Float[Tensor, "num_logits vocab"], work: Work, request: Request) -> list[int]:
        params, generator, history = request.params, request.generator, request.history
        if not work.drafts:
            return [sample(scores[0], params, generator, history)]
        return sample_verifying(scores, work.drafts, params, generator, history)


def runner_for(
    model: Llava, num_blocks: int, *, is_compiled: bool = False, kv_cache: KeysValues | None = None
) -> Runner:
    """What computes a model best where it is.

    `is_compiled`: on a CUDA device tokens are computed by kernels made for it, replayed as graphs. Then the very first
    tokens wait some seconds for a compiler, all `num_blocks` are taken at once, where there is room for them, and the
    model becomes the runner's, its weights joined and rewritten. Elsewhere it changes nothing; where GPU or model are
    none for it, a warning says why.

    `kv_cache`: what the native kernels keep keys and values as; int8 is half of float16, the default. In torch they
    are what the model computes in. Raises ValueError where something else is asked for, and for a model that another
    runner took over.
    """
    if any(isinstance(layer, nn.Identity) for layer in model.language.layers):
        raise ValueError("another engine took this model over (is_compiled=True): load it once more for this one")
    if kind := native_kind(model):
        return NativeRunner(model, kind, kept_as=kv_cache or "float16")
    if kv_cache is not None:
        raise ValueError(
            f"keys and values are kept as {kv_cache} by the native kernels alone, and this model is computed by torch "
            f"({instruction_set()}): leave out what they are to be kept as"
        )
    if is_compiled and model.language.norm.weight.device.type == "cuda":
        if (reason := reason_against(model, num_blocks)) is None:
            return GraphRunner(model, num_blocks)
        warnings.warn(f"the model is computed by torch on this GPU, which takes longer: {reason}", stacklevel=2)
    return TorchRunner(model)


def _ms_since(start: float) -> float:
    return (perf_counter() - start) * 1000
