"""Everything a training run depends on, as one frozen value that is saved with the run and runs it again."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llavakit.config import ClipConfig, Config, LlavaConfig


class TrainConfig(Config):
    """One run of one stage. A learning rate holds for what the stage trains; `vision_rate` lets the tower join in."""

    stage: Literal["clip", "language", "align", "instruct"]
    data: tuple[str, ...]
    out: str
    tokenizer: str | None = Field(None, description="tokenizer.json, for stages that start from nothing")
    start: str | None = Field(None, description="a model folder or catalog name to start from")
    parts: dict[Literal["vision", "projector", "language"], str] = Field(
        {}, description="runs or folders whose weights replace those parts of the start"
    )
    model: LlavaConfig | None = Field(None, description="the model's shape, where there is no start")
    clip: ClipConfig | None = Field(None, description="the shape of the contrastive pair, in stage clip")

    seed: int = 0
    steps: int | None = Field(None, gt=0, description="optimiser steps; default: as many as `epochs` take")
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(128, gt=0)
    micro_batch: int | None = Field(None, gt=0, description="samples through the model at once; default: the batch")
    max_length: int = Field(2048, gt=1)

    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(gt=0)
    vision_rate: float = Field(0.0, ge=0, description="the tower's own rate in stage instruct; 0 keeps it frozen")
    min_rate: float = Field(0.0, ge=0, le=1, description="the cosine's end, as a share of its top")
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps in which the rate rises")
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = Field(1.0, gt=0, description="largest gradient norm; null does not clip")
    num_foils: int = Field(0, ge=0, description="wrong captions beside each right one, in stage clip")
    caption_weight: float = Field(0.0, ge=0, description="weight of the captioning loss, in stage clip")

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    threads: int | None = Field(None, gt=0)
    workers: int = Field(1, ge=0, description="processes that prepare batches")
    save_every: int = Field(200, gt=0)
    log_every: int = Field(10, gt=0)
