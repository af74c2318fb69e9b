"""Everything a training run depends on, as one frozen value that is saved with the run and runs it again."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from llavakit.config import ClipConfig, Config, LlavaConfig, ViewMode

Part = Literal["vision", "projector", "language"]
Paths = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]

# Settings of one stage alone; set in another they would do nothing, so they are refused there.
ONLY_IN = {"clip": "clip", "num_foils": "clip", "patch_weight": "clip", "vision_rate": "instruct"}


class TrainError(ValueError):
    """A run that cannot start or go on; the message says why and what to do."""


class TrainConfig(Config):
    """One run of one stage. A learning rate holds for what the stage trains; `vision_rate` lets the tower join in."""

    stage: Literal["clip", "language", "align", "instruct"]
    data: Paths = Field(min_length=1, description="JSON or JSONL files in LLaVA's schema; one, or a list")
    images: str | None = Field(None, description="folder that pictures' paths start from; default: each file's own")
    out: str = Field(description="the run's folder: configuration, checkpoints, metrics, and in the end the model")
    tokenizer: str | None = Field(None, description="tokenizer.json, for stages that start from nothing")
    start: str | None = Field(None, description="a model's folder or catalog name, or a run, to start from")
    parts: dict[Part, str] = Field({}, description="models or runs whose weights replace those parts of the start")
    fresh: tuple[Part, ...] = Field((), description="parts of the start that begin anew from random weights")
    model: LlavaConfig | None = Field(None, description="the model's shape, where there is no start")
    clip: ClipConfig | None = Field(None, description="the shape of the contrastive pair, in stage clip")
    resize_mode: ViewMode | None = Field(
        None, description="how pictures become square, kept in the model; default: as the start has it"
    )

    seed: int = Field(0, ge=0)
    steps: int | None = Field(None, gt=0, description="optimiser steps; default: as many as `epochs` take")
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(128, gt=0)
    micro_batch: int | None = Field(None, gt=0, description="samples through the model at once; default: the batch")
    max_length: int | None = Field(
        None, gt=1, description="tokens at which a sample is cut; default: the model's context"
    )

    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(gt=0)
    vision_rate: float = Field(0.0, ge=0, description="the tower's own rate in stage instruct; 0 keeps it frozen")
    min_rate: float = Field(0.0, ge=0, le=1, description="the cosine's end, as a share of its top")
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps in which the rate rises")
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = Field(1.0, gt=0, description="largest gradient norm; null does not clip")
    num_foils: int = Field(0, ge=0, description="wrong captions beside each right one, in stage clip")
    patch_weight: float = Field(0.0, ge=0, description="weight of matching patches with words, in stage clip")

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    compile: bool = Field(False, description="compile the layers: faster after a minute; needs a C++ compiler")
    threads: int | None = Field(None, gt=0)
    workers: int = Field(1, ge=0, description="processes that prepare batches")
    save_every: int = Field(200, gt=0)
    log_every: int = Field(10, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, stage in ONLY_IN.items():
            if self.stage != stage and getattr(self, key):
                raise ValueError(f"{key} belongs to stage {stage} and does nothing in stage {self.stage}; leave it out")
        if self.stage == "clip" and (self.clip is None or self.model is None or self.start is not None):
            raise ValueError("stage clip begins anew: give it model, clip and tokenizer, and no start")
        if self.stage == "clip" and self.micro_batch not in (None, self.batch_size):
            raise ValueError("stage clip compares the pictures of a batch with each other; leave out micro_batch")
        if self.start is None and (self.model is None or self.tokenizer is None):
            raise ValueError("start is missing: a model to begin from, or else model and tokenizer to begin anew")
        if self.start is not None and (self.model or self.clip or self.tokenizer):
            raise ValueError("with start, shape and tokenizer come from there; leave out model, clip and tokenizer")
        if self.start is None and self.fresh:
            raise ValueError("fresh names parts of a start, and there is none: everything begins anew")
        if self.clip is not None and self.model is not None and self.clip.vision != self.model.vision:
            raise ValueError("clip.vision and model.vision are one tower, and should be the same")
        return self
