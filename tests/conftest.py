"""What every test stands on: shapes checked while the code runs, and the golden files where there are any."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from beartype import beartype
from jaxtyping import install_import_hook

ROOT = Path(__file__).parent.parent


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check every call of a function whose signature states shapes; leave the others as they are."""
    stated = " ".join(str(annotation) for annotation in function.__annotations__.values())
    return beartype(function) if "Tensor" in stated or "ndarray" in stated else function


# Before any test imports these rooms, so that their shapes are checked in all tests.
install_import_hook(
    ["llavakit.processing", "llavakit.model", "llavakit.engine", "llavakit.train"], f"{__name__}.check_shapes"
)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The golden files made by the original and the Hugging Face implementations; without them the test is skipped."""
    folder = Path(os.environ.get("LLAVAKIT_FIXTURES", ROOT.parent / "shared" / "fixtures"))
    if not folder.is_dir():
        pytest.skip(f"no golden files in {folder}; LLAVAKIT_FIXTURES names another folder")
    return folder
