"""The pocket model's data: drawn when a recipe first needs it, and the tokenizers learned from it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from llavakit.data.records import Record, read_records
from llavakit.data.scenes import write_scenes
from llavakit.processing import train_tokenizer
from llavakit.train.config import TrainConfig

ROOT = Path("runs/pocket-data")
SEED = 1
COUNTS = {"captions": 200_000, "language": 100_000, "instruct": 120_000}
LETTERS = re.compile(r"\b[A-Z0-9]{2,}\b")  # what stands written in pictures is to be spelt, one token a letter


def ensure_data(config: TrainConfig) -> None:
    """Draw and write whatever pocket data `config` names and is not there yet; other data is left alone."""
    for name in config.data:
        path = Path(name)
        if path.is_relative_to(ROOT) and not path.exists():
            kind = path.name.removesuffix("-train.json")
            write_scenes(
                path.parent, count=COUNTS[kind], seed=SEED, split="train", kind=kind, workers=os.cpu_count() or 1
            )
    if config.tokenizer and Path(config.tokenizer).is_relative_to(ROOT) and not Path(config.tokenizer).exists():
        texts = spelt_texts(read_records(config.data))
        train_tokenizer(texts, config.model.language.vocab_size).save(config.tokenizer)


def spelt_texts(records: list[Record]) -> Iterator[str]:
    """The words of a data set for learning a tokenizer, capital letters of signs left out so that they stay single."""
    for record in records:
        yield " ".join(LETTERS.sub("", words) for _, words in record.turns)
