"""Conversations with pictures, to run a model on: of a LLaVA JSON, or drawn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from llavakit.checkpoint.load import Loaded
from llavakit.data.collate import Sample
from llavakit.data.datasets import ConversationDataset
from llavakit.data.records import read_records
from llavakit.data.scenes.split import Split
from llavakit.data.scenes.write import write_scenes
from llavakit.model import Images, Llava
from llavakit.quantize.calibrate import Inputs, recorded
from llavakit.quantize.schemes import Scheme

_SEED = 4  # of drawn prompts; no recipe trains on it
_AT_ONCE = 16  # pictures drawn before the first is looked at


def prompts(loaded: Loaded, data: Path | None, *, num_tokens: int, split: Split) -> Iterator[Sample]:
    """Conversations, as many as have `num_tokens` tokens together, or all of `data` if that is fewer.

    Without `data`, a file in LLaVA's schema, they are drawn, of the split given. Raises `DataError` for a file that
    cannot be read, and FileNotFoundError where a font is missing that pictures are drawn with.
    """
    seen = 0
    for sample in _given(loaded, data) if data else _drawn(loaded, split):
        if seen >= num_tokens:
            return
        seen += len(sample.tokens)
        yield sample


@torch.inference_mode()
def hidden_states(model: Llava, sample: Sample) -> Float[Tensor, "seq dim"]:
    """A whole conversation through a model."""
    weight = model.vision.embeddings.patch_embedding.weight
    tokens = torch.tensor([sample.tokens], device=weight.device)
    images = None if sample.pixels is None else Images(pixels=sample.pixels.to(weight), sizes=sample.sizes)
    return model(tokens, images, torch.arange(tokens.shape[1], device=weight.device)[None])[0]


def observe(model: Llava, scheme: Scheme, samples: Iterable[Sample], watch: Callable[[int], None]) -> Inputs:
    """What goes into the matrices of a model while it reads; `watch` is told the tokens of each conversation."""
    with recorded(model, scheme) as inputs:
        for sample in samples:
            hidden_states(model, sample)
            watch(len(sample.tokens))
    return inputs


def _given(loaded: Loaded, file: Path) -> Iterator[Sample]:
    samples = _samples(loaded, file)
    return (samples[index] for index in range(len(samples)))


def _drawn(loaded: Loaded, split: Split) -> Iterator[Sample]:
    start = 0
    while True:
        with tempfile.TemporaryDirectory() as folder:
            file = write_scenes(
                Path(folder), count=_AT_ONCE, seed=_SEED, split=split, kind="instruct", workers=1, start=start
            )
            samples = _samples(loaded, file)
            yield from (samples[index] for index in range(len(samples)))
        start += _AT_ONCE


def _samples(loaded: Loaded, file: Path) -> ConversationDataset:
    config = loaded.config
    return ConversationDataset(
        read_records([file]), loaded.processor, template=config.template, max_length=config.language.max_positions
    )
