"""What is exported, whatever it is written as."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from llavakit.checkpoint.gguf.language import Precision
from llavakit.checkpoint.reader import Tensors
from llavakit.config import LlavaConfig
from llavakit.processing.tokenizer import Tokenizer


@dataclass(frozen=True)
class Source:
    """A whole model, its tensors by our names and not yet read."""

    config: LlavaConfig
    tensors: Tensors
    tokenizer: Tokenizer
    dtype: torch.dtype  # of the weights as they are to be written
    folder: Path  # where the model lies
    name: str  # of the folder that is written
    precision: Precision = "f16"  # of the language model in GGUF, which has types of its own
