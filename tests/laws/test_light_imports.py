"""What must be quick imports nothing heavy: seen from outside, in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "PIL", "tokenizers", "safetensors", "transformers", "rich", "huggingface_hub")


def _heavy_after(code: str) -> set[str]:
    """The heavy packages that an interpreter has imported once it has run the code."""
    report = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(HEAVY) & set(done.stderr.split())


@pytest.mark.parametrize("module", ["llavakit", "llavakit.config", "llavakit.anyres", "llavakit.catalog"])
def test_plain_data_is_light(module: str) -> None:
    assert not _heavy_after(f"import {module}")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"]]
    + [
        [name, "--help"]
        for name in ("ask", "chat", "train", "show", "doctor", "parity", "scenes", "pull", "list", "rm", "bench")
    ],
)
def test_help_is_light(arguments: list[str]) -> None:
    run = "from llavakit.cli.main import main\ntry:\n    main()\nexcept SystemExit as done:\n    assert not done.code"
    assert not _heavy_after(f"sys.argv = ['llava', *{arguments!r}]\n{run}")


def test_every_public_name_is_there() -> None:
    check = "import llavakit\nfor name in llavakit.__all__: assert getattr(llavakit, name) is not None, name"
    subprocess.run([sys.executable, "-c", check], check=True)
