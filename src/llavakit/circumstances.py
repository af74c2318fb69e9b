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
    """The commit of the code that runs, marked where the package has been changed since; None outside a clone."""
    here = Path(__file__)

    def git(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        asked = ("git", "-C", str(here.parent), *arguments)
        return subprocess.run(asked, capture_output=True, text=True, timeout=20, check=check)

    try:
        git("ls-files", "--error-unmatch", here.name)  # a package may be installed within somebody else's clone
        head = git("rev-parse", "HEAD").stdout.strip()
        is_changed = git("diff", "--quiet", "HEAD", "--", ".", check=False).returncode != 0
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if is_changed else "")
