"""The pocket model's data: drawn when a recipe first needs it, and the tokenizers learned from it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from llavakit.data.records import Record, read_records
from llavakit.data.scenes import write_scenes
from llavakit.processing import TextSegment, render, train_tokenizer
from llavakit.train.config import TrainConfig

ROOT = Path("runs/pocket-data")
SAMPLES = {"captions": (1, 200_000), "mixed": (2, 200_000), "language": (3, 60_000)}  # kind: (seed, count)
LETTERS = re.compile(r"\b(?!USER|ASSISTANT)[A-Z0-9]{2,}\b")  # words on signs are to be spelt, one token a letter
TOKENIZER_RECORDS = 40_000


def pocket_data(kind: str) -> str:
    """Where the samples of a kind are."""
    return str(ROOT / kind / f"{kind}-train.json")


def pocket_tokenizer(kind: str) -> str:
    """Where the tokenizer learned from the samples of a kind is."""
    return str(ROOT / kind / "tokenizer.json")


def ensure_data(config: TrainConfig) -> None:
    """Draw and write whatever pocket data `config` names and is not there yet; other data is left alone."""
    for kind, (seed, count) in SAMPLES.items():
        path, tokenizer = Path(pocket_data(kind)), Path(pocket_tokenizer(kind))
        learn = config.tokenizer == str(tokenizer) and not tokenizer.exists()
        if (str(path) in config.data or learn) and not path.exists():
            write_scenes(path.parent, count=count, seed=seed, split="train", kind=kind, workers=os.cpu_count() or 1)
        if learn:
            texts = spelt_texts(read_records([path])[:TOKENIZER_RECORDS])
            train_tokenizer(texts, config.model.language.vocab_size).save(tokenizer)


def spelt_texts(records: Sequence[Record]) -> Iterator[str]:
    """The words of samples as the model will read them, without the capital letters of signs: those stay single."""
    for record in records:
        segments = render(record.conversation(), "vicuna_v1")
        yield LETTERS.sub("", "".join(segment.text for segment in segments if isinstance(segment, TextSegment)))
