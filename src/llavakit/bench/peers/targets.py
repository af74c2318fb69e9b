"""What is aimed at, and how far it is: each target one ratio, worked out in every round, of which the median counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llavakit.bench.figures import figure
from llavakit.bench.peers.jobs import Prompt
from llavakit.bench.peers.table import OURS
from llavakit.bench.probe import Ceilings

RIVAL = "llama.cpp"


@dataclass
class Round:
    """What the machine could do, and the seconds of each peer's jobs."""

    ceilings: Ceilings
    seconds: dict[str, dict[str, float]]

    def first_word(self, peer: str) -> float:
        """From a picture to the first word about it: the tower, then the prompt."""
        return self.seconds[peer]["encode"] + self.seconds[peer]["prefill"]

    @property
    def others(self) -> list[str]:
        return [name for name in self.seconds if name != OURS]


@dataclass(frozen=True)
class Facts:
    """What does not change from round to round.

    `decode_bytes`: what one token reads, weights and cache. `prefill_operations`: what the prompt costs.
    """

    prompt: Prompt
    decode_bytes: float
    prefill_operations: float = 0


@dataclass(frozen=True)
class Target:
    """`ratio` of a round, or None where who it is compared with is not there; at least `aim`, or at most."""

    name: str
    aim: float
    ratio: Callable[[Round, Facts], float | None]


def _times_faster(job: str, rival: str) -> Callable[[Round, Facts], float | None]:
    def ratio(one: Round, facts: Facts) -> float | None:
        return one.seconds[rival][job] / one.seconds[OURS][job] if rival in one.seconds else None

    return ratio


def _over_fastest_prefill(one: Round, facts: Facts) -> float | None:
    others = [one.seconds[name]["prefill"] for name in one.others]
    return min(others) / one.seconds[OURS]["prefill"] if others else None


def _share_of_bandwidth(one: Round, facts: Facts) -> float:
    read = facts.decode_bytes * facts.prompt.spoken / one.seconds[OURS]["decode"]
    return read / (one.ceilings.read_gbps * 1e9)


def _share_of_products(one: Round, facts: Facts) -> float | None:
    if one.ceilings.bfloat16_gflops is None:
        return None
    return facts.prefill_operations / one.seconds[OURS]["prefill"] / (one.ceilings.bfloat16_gflops * 1e9)


def _together(one: Round, facts: Facts) -> float:
    prompt, ours = facts.prompt, one.seconds[OURS]
    many = prompt.conversations * prompt.spoken_together / ours["together"]
    return many / (prompt.spoken / ours["decode"])


def _first_word(one: Round, facts: Facts) -> float | None:
    return one.first_word(RIVAL) / one.first_word(OURS) if RIVAL in one.seconds else None


def _second_question(one: Round, facts: Facts) -> float:
    return one.first_word(OURS) / one.seconds[OURS]["second"]


_SHARE = "decode, share of the read bandwidth probed in the same round"
TARGETS = (
    Target("prefill of a picture prompt, times llama.cpp's rate", 2.5, _times_faster("prefill", RIVAL)),
    Target("prefill of a picture prompt, times the fastest other's rate", 1.6, _over_fastest_prefill),
    Target("decode, times llama.cpp's rate", 1.25, _times_faster("decode", RIVAL)),
    Target(_SHARE, 0.85, _share_of_bandwidth),
    Target("eight conversations together, times the rate of one", 4.5, _together),
    Target("picture encoding, times llama.cpp's rate", 2.5, _times_faster("encode", RIVAL)),
    Target("first word about a picture, times sooner than llama.cpp's", 2.6, _first_word),
    Target("second question about a picture, times sooner than the first", 8.0, _second_question),
)
MEMORY_AIM = 0.75  # of llama.cpp's resident memory, at most


def targets_on(device: str, scheme: str) -> Sequence[Target]:
    """What is aimed at on a device. On a GPU weights of 4 bits are read so fast that the rest of a step counts more."""
    if device == "cpu":
        return TARGETS
    return (
        Target(_SHARE, 0.70 if scheme.startswith(("int4", "nf4")) else 0.85, _share_of_bandwidth),
        Target("prefill of a picture prompt, share of the bfloat16 products probed", 0.60, _share_of_products),
        Target("prefill of a picture prompt, times transformers' rate", 1.0, _times_faster("prefill", "transformers")),
        Target("decode, times transformers' rate", 1.0, _times_faster("decode", "transformers")),
        Target("64 conversations together, times transformers' rate", 1.0, _times_faster("together", "transformers")),
    )


def reached(
    targets: Sequence[Target], rounds: list[Round], facts: Facts, memory: Mapping[str, Mapping[str, int]]
) -> list[dict[str, Any]]:
    """Every target that could be worked out, with its ratio over the rounds and whether it is reached."""
    rows = []
    for target in targets:
        ratios = [ratio for one in rounds if (ratio := target.ratio(one, facts)) is not None]
        if ratios:
            told = figure(ratios)
            rows.append(
                {"target": target.name, "at_least": target.aim, **told, "reached": told["median"] >= target.aim}
            )
    if memory.get(OURS) and memory.get(RIVAL):
        ratio = figure([memory[OURS]["resident"] / memory[RIVAL]["resident"]])
        name = "resident memory, of llama.cpp's"
        rows.append({"target": name, "at_most": MEMORY_AIM, **ratio, "reached": ratio["median"] <= MEMORY_AIM})
    return rows
