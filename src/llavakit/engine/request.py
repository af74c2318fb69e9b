"""What an answer is, while it comes and when it is complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class Timings:
    """Where the time of one answer went, in milliseconds; what a reader does between two pieces is not counted.

    `encode_ms`: the tower, for pictures not seen before. `prefill_ms`: the language model over the prompt's new tokens.
    `decode_ms`: all tokens after the first. `first_token_ms`: from the request to the first token, all included.
    `cached_tokens`: how many of the prompt's tokens were computed for an earlier request. `steps`: how often the model
    was asked for tokens of the answer; beside one token each they gave `accepted_drafts`. With others in the same steps
    prefill and decode take as long as those steps took.
    """

    encode_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    first_token_ms: float = 0.0
    cached_tokens: int = 0
    steps: int = 0
    accepted_drafts: int = 0

    @property
    def tokens_per_step(self) -> float:
        """1 without drafts; each accepted one saves a step."""
        return 1 + self.accepted_drafts / max(self.steps, 1)


@dataclass(frozen=True)
class TokenLogprob:
    """How likely a token was to the model, as a natural logarithm: before temperature, penalty and filters.

    `top` are the likeliest tokens at this place, likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Completion:
    """A whole answer.

    `prompt_tokens` holds the placeholders too, `image_tokens` of them. `tokens` are those made, without the end token;
    where a stop string ended the answer they reach beyond the text. `finish_reason` is `stop` when the model or a stop
    string ended the answer, `length` when `max_tokens` or the context did. `logprobs` has one entry for each of
    `tokens` where the parameters ask for it.
    """

    text: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    image_tokens: int
    finish_reason: Literal["stop", "length"]
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True)
class Event:
    """The next piece of text, final as it stands; the last event of an answer also carries the whole of it."""

    text: str
    completion: Completion | None = None
