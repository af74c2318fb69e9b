"""One request from its prompt to its last token: what is said so far, and what the tokens mean for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import perf_counter

from jaxtyping import Float
from torch import Tensor

from llavakit.anyres import PartlyKept, Size
from llavakit.engine.answer_text import AnswerText
from llavakit.engine.drafts import Lookup
from llavakit.engine.request import Completion, Event, Timings, TokenLogprob
from llavakit.engine.runner import Seen
from llavakit.engine.sampling import SamplingParams
from llavakit.engine.scheduler import Sequence as ScheduledSequence
from llavakit.processing.processor import Inputs


class Request:
    """What `Engine.submit` gives: `events` fills as the engine steps, and `completion` is there at the end.

    Or else `error`, where something went wrong in it: then no more comes. Take the events out as you read them.
    Everything else is the engine's.
    """

    def __init__(
        self,
        inputs: Inputs,
        params: SamplingParams,
        text: AnswerText,
        *,
        ends: frozenset[int],
        placeholder: int,
        positions: Sequence[int],
        pictures: Sequence[tuple[Tensor, Size]],
        digests: Sequence[bytes],
        partly_kept: Sequence[PartlyKept],
        sequence: ScheduledSequence,
        started: float,
    ) -> None:
        self.events: deque[Event] = deque()
        self.completion: Completion | None = None
        self.error: BaseException | None = None
        self.inputs, self.params, self.pictures, self.digests = inputs, params, pictures, digests
        self.sequence, self._partly_kept = sequence, partly_kept
        self.history = list(inputs.tokens)
        self.generator = params.generator()
        self.timings = Timings()
        self.embeds: dict[int, Seen] = {}
        self._positions = list(positions)
        self._bias: list[float] | None = None  # made when a picture brings some
        self._text, self._ends, self._started = text, ends, started
        self._room = sequence.max_length - len(inputs.tokens)
        self._tokens: list[int] = []
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._lookup = Lookup(never=placeholder) if params.draft_tokens else None
        if self._lookup:
            self._lookup.extend(inputs.tokens)

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self.completion is not None or self.error is not None

    def place(self, index: int) -> None:
        """A picture was seen: fewer features than patches stand each at the position of its patch.

        What is added to the attention to each is kept too.
        """
        first, end = self.inputs.spans[index]
        places, bias = self.embeds[index].places, self.embeds[index].bias
        if places is not None:
            views = self._positions[first:end]  # where the view begins that a feature is of
            self._positions[first:end] = [view + place for view, place in zip(views, places, strict=True)]
        if bias is not None:
            self._bias = self._bias or [0.0] * len(self._positions)
            self._bias[first:end] = bias

    def positions_of(self, start: int, end: int) -> list[int]:
        """The rotary positions of tokens [start, end), of which those behind the prompt follow one another."""
        behind = self._positions[-1] + 1
        known = self._positions[start:end]
        return known + [behind + i - len(self._positions) for i in range(max(start, len(self._positions)), end)]

    def bias_of(self, start: int, end: int) -> list[float] | None:
        """What is added to the attention to tokens [start, end): nothing behind the prompt."""
        if self._bias is None or start >= len(self._bias):
            return None
        known = self._bias[start:end]
        return known + [0.0] * (end - start - len(known))

    def dropping_from(self, start: int) -> list[PartlyKept]:
        """The pictures of which later layers keep only some, counted from token `start`: none where they lie before."""
        return [(first - start, end - start, kept) for first, end, kept in self._partly_kept if first >= start]

    def num_dropped_before(self, start: int) -> int:
        """How many tokens before `start` the later layers do without."""
        return sum(end - first - kept for first, end, kept in self._partly_kept if first < start)

    def guess(self) -> list[int]:
        """Drafts of the next tokens, where the parameters want any."""
        return self._lookup.guess(self.params.draft_tokens) if self._lookup else []

    def take(self, tokens: Sequence[int], logits: Float[Tensor, "num_logits vocab"]) -> list[int]:
        """The model says these tokens, by these scores; returns those that belong to the answer.

        There are fewer where an end token, a stop string or the longest length is met: then it is complete.
        """
        if not self._tokens:
            self.timings.first_token_ms = (perf_counter() - self._started) * 1000
        self.timings.steps += 1
        taken: list[int] = []
        for number, (token, scores) in enumerate(zip(tokens, logits[: len(tokens)], strict=True)):
            self.timings.accepted_drafts += number > 0  # the first one would have come without drafts
            if token in self._ends:
                self._complete(is_ended=True)
                break
            taken.append(token)
            self._put(token, scores)
            if self.completion is not None:
                break
        self.history += taken
        if self._lookup:
            self._lookup.extend(taken)
        return taken

    def _put(self, token: int, scores: Float[Tensor, " vocab"]) -> None:
        self._tokens.append(token)
        if self.params.logprobs is not None:
            self._logprobs.append(token_logprob(token, scores, self.params.logprobs))
        piece = self._text.put(token)
        if self._text.stopped or len(self._tokens) == self._room:
            self._complete(is_ended=False, piece=piece)
        elif piece:
            self._pieces.append(piece)
            self.events.append(Event(piece))

    def _complete(self, *, is_ended: bool, piece: str = "") -> None:
        stopped = self._text.stopped
        last = piece if stopped else piece + self._text.finish(is_ended=is_ended)
        self.completion = Completion(
            text="".join(self._pieces) + last,
            prompt_tokens=tuple(self.inputs.tokens),
            tokens=tuple(self._tokens),
            image_tokens=sum(end - start for start, end in self.inputs.spans),
            finish_reason="stop" if stopped or is_ended else "length",
            timings=self.timings,
            logprobs=None if self.params.logprobs is None else tuple(self._logprobs),
        )
        self.events.append(Event(last, self.completion))


def token_logprob(token: int, scores: Float[Tensor, " vocab"], num_top: int) -> TokenLogprob:
    """A token's log probability, and those of the `num_top` likeliest."""
    logprobs = scores.double().log_softmax(-1)
    values, ids = logprobs.topk(min(num_top, len(logprobs)))
    return TokenLogprob(token, float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))
