"""A peer that takes as long as it is told to, for tests of what runs the peers; it is started as a process."""

from __future__ import annotations

import os
from typing import Any

from llavakit.bench.peers.worker import Asked, serve


class Pretends:
    def __init__(self, asked: Asked) -> None:
        print("a peer that writes to standard output does no harm")
        name, _, self._trick = os.environ.get("PRETEND", "").partition(" ")
        if asked.cache.name != name:
            self._trick = ""
        if self._trick == "no model":
            raise MemoryError("no room for it")
        self.about: dict[str, Any] = {"version": "1", "threads": asked.threads, "decode_bytes": 10**9}

    def encode(self) -> float:
        return 0.5

    def prefill(self, tokens: int, start: int) -> float:
        return tokens / 100

    def decode(self, steps: int, start: int, batch: int) -> float:
        if self._trick == "dies" and batch > 1:
            os._exit(3)
        if self._trick == "raises" and batch > 1:
            raise RuntimeError("no room for so many")
        return steps * (1 + batch) / 100


if __name__ == "__main__":
    serve(Pretends)
