"""A pickled weight file made into a safetensors file, in a process of its own: `python -m llavakit.checkpoint.pickles`.

Only `llava import` and `llava merge` come here, on --allow-pickle. The file is read with `weights_only`, which builds
tensors and plain containers and nothing else. The process has no more memory and time than the file can need, imports
nothing from the folder it is started in, and hands over a file of numbers, which is checked like any other.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from llavakit.checkpoint import CheckpointError

try:
    import resource
except ImportError:  # not on Windows
    resource = None

_SPARE_BYTES = 4 << 30  # for Python and PyTorch themselves
_COPIES = 3  # of the weights, at most, while they are made into another file
_SPARE_SECONDS = 60.0
_BYTES_PER_SECOND = 10e6  # of the slowest disk worth waiting for
_DAMAGED = "it is damaged or no such file"
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def unpickler(scratch: Path, *, spare_seconds: float = _SPARE_SECONDS) -> Callable[[Path], Path]:
    """What makes safetensors files of pickled ones, under `scratch`, each file once."""
    made: dict[Path, Path] = {}

    def unpickle(path: Path) -> Path:
        if path not in made:
            goal = scratch / f"{len(made)}.safetensors"
            _run(path, goal, spare_seconds + path.stat().st_size / _BYTES_PER_SECOND)
            made[path] = goal
        return made[path]

    return unpickle


def _run(path: Path, goal: Path, seconds: float) -> None:
    # -P: a folder that holds a pickle may hold a torch.py as well.
    command = [sys.executable, "-P", "-m", "llavakit.checkpoint.pickles", str(path), str(goal)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"{path} is not read after {seconds:.0f} s, far longer than its size explains") from None
    if done.returncode != 0 or not goal.is_file():
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        said = lines[-1] if lines else f"reading it ended with code {done.returncode}"
        raise CheckpointError(f"{path} cannot be read as a file of weights: {said}")


def convert(path: Path, goal: Path) -> None:
    """The work of the child: read one file of named tensors, write the other."""
    is_zip = _is_zip(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # foreign bytes fail in every way there is
        wanted = _GLOBAL.search(str(error))
        what = f"it asks for {wanted[1]}, and tensors alone are read" if wanted else _DAMAGED
        raise ValueError(what) from error
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise ValueError("it holds something else than named tensors")
    for name, tensor in found.items():
        if not isinstance(name, str) or tensor.layout != torch.strided or tensor.is_quantized:
            raise ValueError(f"{name!r} is no plain tensor with a name")
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} has {tensor.nbytes:,} bytes, more than are stored of it")
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in found.items()}, goal)


def _is_zip(path: Path) -> bool:
    """Whether it is an archive; PyTorch never compresses one, so that it is as large as what comes out of it."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # both fail in more ways than they say
        raise ValueError(_DAMAGED) from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is a compressed archive, which PyTorch does not write")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("its parts are larger than the file itself")
    return True


def _limit_memory(size: int) -> None:
    if resource is None:
        return
    wanted = _SPARE_BYTES + _COPIES * size
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def main(path: str, goal: str) -> None:
    try:
        _limit_memory(Path(path).stat().st_size)
        convert(Path(path), Path(goal))
    except Exception as error:  # whatever a hostile file does, the parent gets one sentence
        sys.exit(" ".join(str(error).split())[:400] or type(error).__name__)


if __name__ == "__main__":
    main(*sys.argv[1:])
