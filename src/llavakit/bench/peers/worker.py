"""The process that a peer is measured in: it makes its model, then does the jobs that come in on standard input.

One JSON object a line, in either direction. Nothing but the standard library is imported, so that what the process
holds in memory is the peer's.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol


@dataclass(frozen=True)
class Asked:
    """What a worker is to make. `shapes` is a LlavaConfig as plain data; `cache` a folder for files of its own.

    There has to be room for so many `conversations` of `length` tokens.
    """

    shapes: dict[str, Any]
    threads: int
    cache: Path
    scheme: str
    device: str
    conversations: int
    length: int
    kv_cache: str | None = None  # what we ourselves keep keys and values as


class Peer(Protocol):
    """The calls of `bench.subject.Subject`. One that cannot run the whole returns the seconds that it would take."""

    about: dict[str, Any]  # versions, number formats, and what has to be known to read the figures

    def encode(self) -> float | None: ...
    def prefill(self, tokens: int, start: int) -> float | None: ...
    def decode(self, steps: int, start: int, batch: int) -> float | None: ...


def serve(make: Callable[[Asked], Peer]) -> None:
    """Answer until standard input ends. What the peer prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(**what: Any) -> None:
        replies.write(json.dumps(what) + "\n")
        replies.flush()

    try:
        given = json.loads(sys.argv[1])
        start = perf_counter()
        peer = make(Asked(**given | {"cache": Path(given["cache"])}))
        reply(load_s=perf_counter() - start, about=peer.about)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            if name == "memory":
                reply(**memory())
            else:
                reply(seconds=seconds_of(getattr(peer, name), *arguments))
    except Exception as error:  # whatever a peer raises is one sentence to whoever asked
        traceback.print_exc()
        reply(error=f"{type(error).__name__}: {error}")


def seconds_of(call: Callable[..., float | None], *arguments: int) -> float:
    """What a call takes, or says that it took where a part of it is not to be counted."""
    gc.collect()
    start = perf_counter()
    told = call(*arguments)
    return perf_counter() - start if told is None else told


def memory() -> dict[str, int]:
    """Bytes of this process: its peak, what is resident now, and of that what is its own and what a mapped file's."""
    names = {"VmHWM": "peak", "VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "mapped"}
    status = Path("/proc/self/status")
    if not status.is_file():
        return {}
    lines = (line.partition(":") for line in status.read_text().splitlines())
    return {names[key]: int(value.split()[0]) * 1024 for key, _, value in lines if key in names}
