"""The stages of training, as a table: what learns and at which rate, what is read, and what is made small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from llavakit.config import LlavaConfig
from llavakit.data.collate import Batch, CaptionBatch, collate, collate_captions
from llavakit.data.datasets import CaptionDataset, ConversationDataset, TextDataset
from llavakit.data.records import Record
from llavakit.model import Llava
from llavakit.model.clip import Clip, sharpness
from llavakit.processing import Processor
from llavakit.train.config import TrainConfig, TrainError
from llavakit.train.loss import contrastive, cross_entropy, elsewhere, match_patches


@dataclass(frozen=True)
class Stage:
    """One row of the table. `rates` names the config field that holds each learning part's rate; "" is the whole."""

    rates: dict[str, str]
    dataset: Callable[[Sequence[Record], Processor, TrainConfig], Dataset]
    collate: Callable[..., Batch | CaptionBatch]
    loss: Callable[[Any, Any, TrainConfig], tuple[Tensor, dict[str, float]]]

    def learning_rates(self, config: TrainConfig) -> dict[str, float]:
        """The top rate of each learning part; 0 leaves a part frozen after all."""
        return {part: getattr(config, field) for part, field in self.rates.items()}


def token_loss(model: Llava, batch: Batch, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
    """Summed surprise at the batch's target tokens."""
    hidden = model(batch.tokens, batch.images, batch.positions)
    return cross_entropy(hidden, batch.labels, model.language.output_weight), {}


def clip_loss(model: Clip, batch: CaptionBatch, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
    """The contrastive loss, and beside it that of patches and words; scaled to a sum as `token_loss` is.

    Logs `match` and `patch`, the two losses; `found`, the share of pictures nearest to their own caption; and
    `named`, the share of patches nearest to their own words.
    """
    num_pictures, tokens = len(batch.pixels), batch.texts
    states = model.vision.hidden_states(batch.pixels)
    pictures, texts = model.embed_pictures(states), model.embed_texts(tokens, batch.lengths)
    same = (tokens[:num_pictures, None] == tokens[None]).all(-1)
    loss = contrastive(pictures, texts, sharpness(model.logit_scale), same)
    found = (pictures @ texts.T).masked_fill(elsewhere(same), -1).argmax(1)
    own = torch.arange(num_pictures, device=found.device)
    logs = {"match": loss.item(), "found": (found == own).float().mean().item()}
    if config.patch_weight:
        patches, words = model.embed_patches(states), model.embed_texts(batch.words, batch.word_lengths)
        naming, named = match_patches(patches, words, sharpness(model.patch_logit_scale), batch.patch_words)
        loss = loss + config.patch_weight * naming
        logs |= {"patch": naming.item(), "named": named.item()}
    return loss * batch.num_targets, logs


def max_length(config: TrainConfig, model: LlavaConfig) -> int:
    """Tokens at which samples are cut; raises `TrainError` for more than the model was built for."""
    context = (config.clip.text if config.clip else model.language).max_positions
    if config.max_length is not None and config.max_length > context:
        raise TrainError(f"max_length is {config.max_length}, but the model's context holds {context} tokens")
    return config.max_length or context


def _conversations(records: Sequence[Record], processor: Processor, config: TrainConfig) -> Dataset:
    length = max_length(config, processor.config)
    return ConversationDataset(records, processor, template=processor.config.template, max_length=length)


def _plain(records: Sequence[Record], processor: Processor, config: TrainConfig) -> Dataset:
    length = max_length(config, processor.config)
    return ConversationDataset(records, processor, template="plain", max_length=length)


def _text(records: Sequence[Record], processor: Processor, config: TrainConfig) -> Dataset:
    length = max_length(config, processor.config)
    return TextDataset(records, processor, template=processor.config.template, max_length=length)


def _captions(records: Sequence[Record], processor: Processor, config: TrainConfig) -> Dataset:
    length = max_length(config, processor.config)
    return CaptionDataset(
        records, processor, num_foils=config.num_foils, with_regions=config.patch_weight > 0, max_length=length
    )


STAGES: dict[str, Stage] = {
    "clip": Stage({"": "learning_rate"}, _captions, collate_captions, clip_loss),
    "language": Stage({"language": "learning_rate"}, _text, collate, token_loss),
    "align": Stage({"projector": "learning_rate"}, _plain, collate, token_loss),
    "instruct": Stage(
        {
            "projector": "learning_rate",
            "image_newline": "learning_rate",
            "language": "learning_rate",
            "vision": "vision_rate",
        },
        _conversations,
        collate,
        token_loss,
    ),
}
