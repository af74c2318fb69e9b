"""A pickled weight file made into a safetensors file, in a process of its own: `python -m llavakit.checkpoint.pickles`.

Only `llava import --allow-pickle` comes here. The file is read with `weights_only`, which builds tensors and plain
containers and nothing else; should that ever be got round, the process can at most damage itself: it has no more
memory than the file can need, and hands over a file of numbers, which is checked like any other.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from llavakit.checkpoint import CheckpointError

try:
    import resource
except ImportError:  # not on Windows
    resource = None

_SPARE_BYTES = 16 << 30  # address space of Python and PyTorch themselves
_COPIES = 4  # of the weights, at most, while they are made into another file


def unpickler(scratch: Path) -> Callable[[Path], Path]:
    """What makes safetensors files of pickled ones, under `scratch`, each file once."""
    made: dict[Path, Path] = {}

    def unpickle(path: Path) -> Path:
        if path not in made:
            goal = scratch / f"{len(made)}.safetensors"
            _run(path, goal)
            made[path] = goal
        return made[path]

    return unpickle


def _run(path: Path, goal: Path) -> None:
    command = [sys.executable, "-m", "llavakit.checkpoint.pickles", str(path), str(goal)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0 or not goal.is_file():
        said = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        raise CheckpointError(f"{path} cannot be read as a file of weights: {said}")


def convert(path: Path, goal: Path) -> None:
    """The work of the child: read one file of named tensors, write the other."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # files of before 2020 cannot be mapped
        found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise ValueError("it holds something else than named tensors")
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in found.items()}, goal)


def _limit_memory(size: int) -> None:
    if resource is None:
        return
    wanted = _SPARE_BYTES + _COPIES * size
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def main(path: str, goal: str) -> None:
    try:
        _limit_memory(Path(path).stat().st_size)
        convert(Path(path), Path(goal))
    except Exception as error:  # whatever a hostile file does, the parent gets one sentence
        sys.exit(" ".join(str(error).split())[:400] or type(error).__name__)


if __name__ == "__main__":
    main(*sys.argv[1:])
