"""Ourselves as one of the peers: `python -m llavakit.bench.peers.ours`, run by `llava bench peers`."""

from __future__ import annotations

from typing import Any

import torch

from llavakit.bench.peers.worker import Asked, serve
from llavakit.bench.schemes import make_subject
from llavakit.config import LlavaConfig


class Ours:
    def __init__(self, asked: Asked) -> None:
        self._subject = make_subject(
            LlavaConfig.parse(asked.shapes),
            asked.scheme,
            threads=asked.threads,
            device=asked.device,
            conversations=asked.conversations,
            length=asked.length,
        )
        self.about: dict[str, Any] = {
            "version": torch.__version__,
            "weights": asked.scheme,
            "decode_bytes": self._subject.decode_bytes,
        }
        self.encode, self.prefill, self.decode = self._subject.encode, self._subject.prefill, self._subject.decode


if __name__ == "__main__":
    serve(Ours)
