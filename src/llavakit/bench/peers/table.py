"""Who is measured: how each is started, what it needs to be there, and how much memory it takes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llavakit.bench.cost import language_matrices, tower_matrices
from llavakit.config import LlavaConfig, nearest

# Nothing in the package imports the others' code: their workers are scripts of the repository.
SCRIPTS = Path(__file__).parents[4] / "benchmarks" / "peers"
OURS = "llavakit"


@dataclass(frozen=True)
class Peer:
    """`modules` are the packages that it cannot do without; `files` the files that `prepare` writes for it.

    `bytes_a_weight` says what it will hold at most, so that peers which do not fit into memory together take turns.
    `devices` are those it can be measured on.
    """

    name: str
    worker: tuple[str, ...]
    bytes_a_weight: float
    modules: tuple[str, ...] = ()
    prepare: str | None = None
    files: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)

    @property
    def command(self) -> list[str]:
        return [sys.executable, *self.worker]

    def missing(self) -> list[str]:
        """The packages that are not here."""
        return [module for module in self.modules if importlib.util.find_spec(module) is None]

    def memory(self, config: LlavaConfig, *, cached_tokens: int) -> float:
        """Bytes that it takes at most, roughly."""
        language = config.language
        weights = sum(matrix.weights for matrix in language_matrices(language))
        cache = 4 * language.num_layers * language.num_kv_heads * language.head_dim * cached_tokens
        return self.bytes_a_weight * weights + 2 * sum(matrix.weights for matrix in tower_matrices(config)) + cache


def _script(name: str) -> tuple[str, ...]:
    return (str(SCRIPTS / name),)


_TABLE = (
    Peer(OURS, ("-m", "llavakit.bench.peers.ours"), 0.7, devices=("cpu", "cuda")),
    # It maps the file, and keeps a copy of it in an order of its own.
    Peer(
        "llama.cpp",
        _script("with_llama_cpp.py"),
        1.2,
        modules=("llama_cpp",),
        prepare=str(SCRIPTS / "random_gguf.py"),
        files=("language.gguf", "mmproj.gguf"),
    ),
    Peer("openvino", _script("with_openvino.py"), 1.5, modules=("openvino",)),
    Peer(
        "transformers",
        _script("with_transformers.py"),
        2.2,
        modules=("transformers", "torch"),
        devices=("cpu", "cuda"),
    ),
)
PEERS = {peer.name: peer for peer in _TABLE}


def find_peers(names: list[str], *, device: str = "cpu") -> list[Peer]:
    """The peers of these names, all that can compute on the device where there are none.

    Raises ValueError for one that nobody knows, or that is not measured there.
    """
    for name in names:
        if name not in PEERS:
            raise ValueError(f"there is no peer called {name!r}: {nearest(name, list(PEERS))}")
        if device not in PEERS[name].devices:
            raise ValueError(f"{name} is measured on {' and '.join(PEERS[name].devices)}, not on {device}")
    return [peer for peer in _TABLE if device in peer.devices and (not names or peer.name in names)]


def by_memory(peers: list[Peer], size: Callable[[Peer], float], room: float) -> list[list[Peer]]:
    """Groups that fit into memory together, as few as come of taking them in order; one too large stands alone."""
    groups: list[list[Peer]] = []
    for peer in peers:
        for group in groups:
            if sum(map(size, group)) + size(peer) <= room:
                group.append(peer)
                break
        else:
            groups.append([peer])
    return groups
