"""Under what circumstances a result came about, so that another can bring it about again."""

from __future__ import annotations

import hashlib
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from llavakit import __version__

PACKAGES = ("torch", "numpy", "pillow", "tokenizers")


def circumstances(device: torch.device) -> dict[str, Any]:
    """Machine, versions, commit and command."""
    return {
        "machine": {
            "cpu": _cpu_model(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "system": platform.system(),
        },
        "versions": {"llavakit": __version__, "python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
        "commit": _commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def digest(*files: Path) -> str:
    """The SHA-256 of files, one behind the other: the same content has the same name everywhere."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            total.update(hashlib.file_digest(opened, "sha256").digest())
    return total.hexdigest()


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the code that runs, marked where it has been changed since; None outside a clone."""
    folder = Path(__file__).parent
    asked = ("git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*")
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None
