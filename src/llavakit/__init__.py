"""LLaVA whole: load a model, show it a picture, talk with it.

The public names are resolved on first use, so that `import llavakit` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llavakit import catalog
    from llavakit.checkpoint.load import load
    from llavakit.engine.engine import Engine
    from llavakit.engine.sampling import SamplingParams
    from llavakit.processing.conversation import Conversation

__version__ = "0.1.0"
__all__ = ["Conversation", "Engine", "SamplingParams", "catalog", "load"]

_HOMES = {
    "Conversation": "llavakit.processing.conversation",
    "Engine": "llavakit.engine.engine",
    "SamplingParams": "llavakit.engine.sampling",
    "load": "llavakit.checkpoint.load",
}


def __getattr__(name: str) -> object:
    if name == "catalog":
        return import_module("llavakit.catalog")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
