"""The stages of training, as a table: what learns and at which rate, what is read, and what is made small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from llavakit.data.collate import Batch, CaptionBatch, collate, collate_captions
from llavakit.data.datasets import CaptionDataset, ConversationDataset, TextDataset
from llavakit.data.records import Record
from llavakit.model import Llava
from llavakit.model.clip import MAX_LOGIT_SCALE, Clip
from llavakit.processing import Processor
from llavakit.train.config import TrainConfig
from llavakit.train.loss import contrastive, cross_entropy


@dataclass(frozen=True)
class Stage:
    """One row of the table. `rates` names the config field that holds each learning part's rate; "" is the whole."""

    rates: dict[str, str]
    dataset: Callable[[Sequence[Record], Processor, TrainConfig], Dataset]
    collate: Callable[..., Batch | CaptionBatch]
    loss: Callable[[Any, Any, TrainConfig], tuple[Tensor, dict[str, float]]]

    def learning_rates(self, config: TrainConfig) -> dict[str, float]:
        return {part: getattr(config, field) for part, field in self.rates.items()}


def token_loss(model: Llava, batch: Batch, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
    """Summed surprise at the batch's target tokens."""
    hidden = model(batch.tokens, batch.images, batch.positions)
    return cross_entropy(hidden, batch.labels, model.language.output_weight), {}


def clip_loss(model: Clip, batch: CaptionBatch, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
    """The contrastive loss, and beside it the captioner's surprise per token; scaled to a sum as `token_loss` is."""
    num_pictures, tokens = len(batch.pixels), batch.texts
    states = model.vision.hidden_states(batch.pixels)
    pictures, texts = model.embed_pictures(states), model.embed_texts(tokens, batch.lengths)
    same = (tokens[:num_pictures, None] == tokens[None]).all(-1)
    scale = model.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    matching = contrastive(pictures, texts, scale, same)
    found = (pictures @ texts.T).masked_fill(same & ~torch.eye(*same.shape, dtype=torch.bool), -1).argmax(1)
    logs = {"match": matching.item(), "found": (found == torch.arange(num_pictures)).float().mean().item()}
    loss = matching
    if config.caption_weight:
        captions, lengths = tokens[:num_pictures], batch.lengths[:num_pictures]
        inside = torch.arange(1, captions.shape[1]) < lengths[:, None]
        labels = torch.where(inside, captions[:, 1:], -100)
        hidden = model.caption(states, captions[:, :-1])
        writing = cross_entropy(hidden, labels, model.captioner.output_weight) / inside.sum()
        loss = loss + config.caption_weight * writing
        logs["caption"] = writing.item()
    return loss * batch.num_targets, logs


def _conversations(records: Sequence[Record], processor: Processor, config: TrainConfig) -> Dataset:
    return ConversationDataset(records, processor, template="vicuna_v1", max_length=config.max_length)


def _plain(records: Sequence[Record], processor: Processor, config: TrainConfig) -> Dataset:
    return ConversationDataset(records, processor, template="plain", max_length=config.max_length)


def _text(records: Sequence[Record], processor: Processor, config: TrainConfig) -> Dataset:
    return TextDataset(records, processor, template="vicuna_v1", max_length=config.max_length)


def _captions(records: Sequence[Record], processor: Processor, config: TrainConfig) -> Dataset:
    return CaptionDataset(records, processor, num_foils=config.num_foils, max_length=config.max_length)


STAGES: dict[str, Stage] = {
    "clip": Stage({"": "learning_rate"}, _captions, collate_captions, clip_loss),
    "language": Stage({"language": "learning_rate"}, _text, collate, token_loss),
    "align": Stage({"projector": "learning_rate"}, _plain, collate, token_loss),
    "instruct": Stage(
        {"projector": "learning_rate", "language": "learning_rate", "vision": "vision_rate"},
        _conversations,
        collate,
        token_loss,
    ),
}

