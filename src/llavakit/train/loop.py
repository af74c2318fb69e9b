"""The training loop, the same for every stage: batches in, a smaller loss out, and nothing lost on the way."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from llavakit.data.collate import Batch, CaptionBatch
from llavakit.data.loader import load_batches
from llavakit.data.sampler import BatchSampler, batches_per_epoch
from llavakit.model.language import DecoderLayer
from llavakit.model.vision import VisionLayer
from llavakit.train.config import TrainConfig, TrainError
from llavakit.train.metrics import Metrics, plot_curves
from llavakit.train.optimizer import freeze_rest, make_optimizers, rate_at, set_rate
from llavakit.train.progress import Progress
from llavakit.train.setup import Setup
from llavakit.train.stages import STAGES
from llavakit.train.state import restore_state, save_state

CURVES = ("loss", "match", "found", "patch", "named", "rate", "grad_norm", "tokens_per_s")


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written, and the same command goes on from there."""


def fit(setup: Setup, config: TrainConfig) -> None:
    """Train `setup.model` in place to the last step of `config`, from the run folder's newest checkpoint if any.

    Raises `Interrupted` after SIGINT or SIGTERM once a checkpoint is written, `TrainError` if the loss is no number
    or the disk takes no checkpoint.
    """
    folder = Path(config.out)
    rates = STAGES[config.stage].learning_rates(config)
    freeze_rest(setup.model, rates)
    if config.compile:
        compile_layers(setup.model)
    optimizers = make_optimizers(setup.model, rates, config)
    start, warnings = restore_state(folder, setup.model, optimizers)
    steps = num_steps(config, len(setup.dataset))
    metrics = Metrics(folder)
    metrics.rewind(start)
    seconds = metrics.rows[-1].get("seconds", 0.0) if metrics.rows else 0.0
    with (
        _stop_requests() as stop,
        Progress(config.out, start, steps) as progress,
        contextlib.closing(_batches(setup, config, start, steps)) as batches,
    ):
        for warning in warnings:
            progress.say(warning)
        for step in range(start + 1, steps + 1):
            began = time.perf_counter()
            share = rate_at(step - 1, steps=steps, warmup=config.warmup, min_rate=config.min_rate)
            set_rate(optimizers, share)
            row = train_step(setup.model, next(batches), optimizers, config)
            row = {"step": step, **row, "rate": config.learning_rate * share}
            spent = time.perf_counter() - began
            seconds += spent
            row |= {"tokens_per_s": row.pop("tokens") / spent, "seconds": round(seconds, 1)}
            progress.show(row)
            if step % config.log_every == 0 or step == steps:
                metrics.add(row)
            if step % config.save_every == 0 or step == steps or stop.requested:
                save_state(folder, step, setup.model, optimizers)
                plot_curves(metrics.rows, folder / "curves.png", CURVES)
            if stop.requested and step < steps:
                raise Interrupted(f"{folder} stopped at step {step} of {steps}; run the same command to go on")


def compile_layers(model: nn.Module) -> None:
    """Compile each transformer layer by itself: they are alike, so there is little to compile."""
    for module in model.modules():
        if isinstance(module, (VisionLayer, DecoderLayer)):
            module.compile()


def num_steps(config: TrainConfig, num_samples: int) -> int:
    """Optimiser steps of a run: as many as asked for, or what the epochs take."""
    return config.steps or math.ceil(config.epochs * batches_per_epoch(num_samples, config.batch_size))


def train_step(
    model: nn.Module, micro_batches: Sequence[Batch | CaptionBatch], optimizers: list[Optimizer], config: TrainConfig
) -> dict[str, float]:
    """One optimiser step over a batch in pieces; returns the loss, the stage's own figures and the gradient norm.

    All are means over the target tokens of the whole batch, so the pieces may be cut in any way.
    """
    device = next(model.parameters()).device
    targets = sum(batch.num_targets for batch in micro_batches)
    assert targets, "data sets refuse samples without a target"
    figures: dict[str, float] = {}
    for batch in micro_batches:
        with precision(config.precision, device):
            loss, logs = STAGES[config.stage].loss(model, batch.to(device), config)
        (loss / targets).backward()
        logs = {"loss": loss.item() / batch.num_targets, **logs}
        for key, value in logs.items():
            figures[key] = figures.get(key, 0.0) + value * batch.num_targets / targets
    learned = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(learned, config.clip_norm or float("inf")).item()
    if not (math.isfinite(figures["loss"]) and math.isfinite(norm)):
        raise TrainError(
            f"the loss is {figures['loss']} and the gradient norm {norm}; lower learning_rate and give another out="
        )
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return {**figures, "grad_norm": norm, "tokens": targets}


def precision(wanted: str, device: torch.device) -> torch.autocast:
    """bfloat16 arithmetic where the machine has instructions for it."""
    use_bf16 = wanted == "bf16" or (wanted == "auto" and _has_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=use_bf16)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    on_cpu = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return on_cpu and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _batches(
    setup: Setup, config: TrainConfig, start: int, stop: int
) -> Generator[list[Batch | CaptionBatch], None, None]:
    order = BatchSampler(setup.dataset.lengths, batch_size=config.batch_size, seed=config.seed, start=start, stop=stop)
    micro, collate = config.micro_batch or config.batch_size, STAGES[config.stage].collate

    def pieces(samples: list[Any]) -> list[Batch | CaptionBatch]:
        return [collate(samples[at : at + micro], pad=setup.pad) for at in range(0, len(samples), micro)]

    return load_batches(setup.dataset, order, pieces, workers=config.workers)


class _Stop:
    requested = False


@contextlib.contextmanager
def _stop_requests() -> Iterator[_Stop]:
    """Turn the first SIGINT or SIGTERM into a wish that the loop grants at the end of its step."""
    stop = _Stop()

    def ask(signum: int, frame: object) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
