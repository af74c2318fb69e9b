"""The jobs that every peer does, in the order in which they stand: each begins where the one before it left off."""

from __future__ import annotations

from dataclasses import dataclass

from llavakit.config import LlavaConfig

Call = tuple[str | int, ...]  # a call of `worker.Peer`, as it is sent


@dataclass(frozen=True)
class Job:
    """`tokens` made or read by one run of it, where a rate is worth telling."""

    name: str
    call: Call
    tokens: int | None = None


@dataclass(frozen=True)
class Prompt:
    """How long everything is: the picture with the words around it, the second question, and what is spoken."""

    first: int = 640
    second: int = 64
    spoken: int = 16
    conversations: int = 8
    spoken_together: int = 8

    @property
    def length(self) -> int:
        """Tokens of a conversation at its longest."""
        return self.first + max(self.second, self.spoken, self.spoken_together)


def jobs(prompt: Prompt) -> list[Job]:
    first, together = prompt.first, prompt.conversations
    return [
        Job("encode", ("encode",)),
        Job("prefill", ("prefill", first, 0), first),
        Job("decode", ("decode", prompt.spoken, first, 1), prompt.spoken),
        Job("second", ("prefill", prompt.second, first), prompt.second),
        Job("together", ("decode", prompt.spoken_together, first, together), prompt.spoken_together * together),
    ]


def prompt_on(device: str) -> Prompt:
    """The jobs of a device: a GPU has room for more conversations, and needs them to be used."""
    return Prompt() if device == "cpu" else Prompt(conversations=64)


def warming(prompt: Prompt, device: str = "cpu") -> list[Call]:
    """What a new worker does once, untimed, so that its memory is touched and its code is ready.

    On a GPU that is everything: what is compiled for a shape is compiled when it first comes.
    """
    if device != "cpu":
        return [job.call for job in jobs(prompt)]
    return [("encode",), ("prefill", prompt.second, 0), ("decode", 1, prompt.second, 1)]


def check_length(config: LlavaConfig, prompt: Prompt) -> None:
    """Raises ValueError where the context of these shapes is too short for the jobs."""
    if prompt.length > config.language.max_positions:
        raise ValueError(
            f"the jobs take {prompt.length} tokens, and the context of these shapes holds "
            f"{config.language.max_positions}: ask for a shorter prompt"
        )
