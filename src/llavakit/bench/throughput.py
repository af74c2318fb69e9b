"""Many conversations together: how much more is spoken in all, and how much slower each becomes."""

from __future__ import annotations

from typing import Any

from llavakit.bench.cost import decode_work
from llavakit.bench.figures import figure
from llavakit.bench.peers.worker import seconds_of
from llavakit.bench.probe import probe
from llavakit.bench.subject import Subject
from llavakit.config import LlavaConfig
from llavakit.kernels.graph import KeysValues


def measure(
    subject: Subject,
    config: LlavaConfig,
    *,
    counts: list[int],
    context: int,
    steps: int,
    threads: int,
    rounds: int,
    device: str = "cpu",
    kv_cache: KeysValues | None = None,
) -> dict[str, Any]:
    """Tokens a second of `n` conversations in all, for every n in turn, each `context` tokens long.

    Beside them stands what share of the bandwidth is used for weights, keys and values.
    """
    if context + steps > config.language.max_positions:
        raise ValueError(
            f"{context} tokens and {steps} more do not fit into the context of {config.language.max_positions}: "
            "ask for a shorter one"
        )
    for count in counts:
        subject.decode(1, context, count) if count > 1 else _read(subject, context)
    rates: dict[int, list[float]] = {count: [] for count in counts}
    shares: dict[int, list[float]] = {count: [] for count in counts}
    bandwidths, weights, language = [], subject.decode_bytes, config.language
    read = {
        count: decode_work(language, context=context, weight_bytes=weights, batch=count, kv_cache=kv_cache).bytes
        for count in counts
    }
    for _ in range(rounds):
        bandwidths.append(probe(threads, device).read_gbps)
        for count in counts:
            seconds = seconds_of(subject.decode, steps, context, count) / steps
            rates[count].append(count / seconds)
            shares[count].append(read[count] / seconds / (bandwidths[-1] * 1e9))
    least = min(counts)
    return {
        "tokens_per_s": {str(count): figure(found) for count, found in rates.items()},
        f"times_{least}": {
            str(count): figure([many / few for many, few in zip(rates[count], rates[least], strict=True)])
            for count in counts
        },
        "share_of_bandwidth": {str(count): figure(found) for count, found in shares.items()},
        "read_gbps": figure(bandwidths),
        "context": context,
        "rounds": rounds,
    }


def _read(subject: Subject, context: int) -> None:
    subject.prefill(context, 0)
    subject.decode(1, context, 1)
