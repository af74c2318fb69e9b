"""What there is to say about a checkpoint folder: a finding, and what was seen of the folder when it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.contents import Contents
from llavakit.checkpoint.formats import read_json
from llavakit.checkpoint.original import Parts
from llavakit.checkpoint.reader import Tensors
from llavakit.checkpoint.translate import is_llava_hf
from llavakit.checkpoint.translate_original import is_original

# wrong: not usable as it is; unusual: perhaps not as it was meant; repaired: read as if it were right, in memory alone.
Severity = Literal["wrong", "unusual", "repaired", "note"]


@dataclass(frozen=True)
class Finding:
    """One sentence about a folder, what to do about it, and where it was seen before."""

    severity: Severity
    says: str
    do: str = ""
    source: str = ""
    names: tuple[str, ...] = ()  # every key, file or tensor it is about


@dataclass(frozen=True)
class Seen:
    """What is known of a folder when its findings are told; `contents` is None where it could not be read."""

    folder: Path
    parts: Parts = field(default_factory=Parts)
    config: Mapping[str, Any] = field(default_factory=dict)  # config.json as it is
    contents: Contents | None = None
    stored: Tensors = field(default_factory=dict)  # the folder's own tensors, by their own names

    @property
    def is_original(self) -> bool:
        return is_original(dict(self.config))

    @property
    def is_hf(self) -> bool:
        return not self.is_original and is_llava_hf(self.config)

    @property
    def has_own_tower(self) -> bool:
        return any("vision_tower." in name for name in self.stored)

    def beside(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder; empty where it is missing or broken."""
        try:
            return read_json(self.folder / name) if (self.folder / name).is_file() else {}
        except CheckpointError:
            return {}
