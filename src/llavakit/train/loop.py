"""The training loop, the same for every stage: batches in, a smaller loss out, and nothing lost on the way."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from llavakit.data.collate import Batch, CaptionBatch
from llavakit.data.sampler import BatchSampler
from llavakit.train.config import TrainConfig
from llavakit.train.metrics import Metrics, plot_curves
from llavakit.train.optimizer import freeze_rest, make_optimizers, rate_at, set_rate
from llavakit.train.progress import Progress
from llavakit.train.setup import Setup
from llavakit.train.stages import STAGES
from llavakit.train.state import TrainError, restore_state, save_state

CURVES = ("loss", "match", "caption", "found", "rate", "grad_norm", "tokens_per_s")


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written, and the same command goes on from there."""


def fit(setup: Setup, config: TrainConfig) -> None:
    """Train `setup.model` in place to the last step of `config`, from the run folder's newest checkpoint if any.

    Raises `Interrupted` after SIGINT or SIGTERM once a checkpoint is written, `TrainError` if the loss is no number.
    """
    folder = Path(config.out)
    stage = STAGES[config.stage]
    rates = stage.learning_rates(config)
    freeze_rest(setup.model, rates)
    optimizers = make_optimizers(setup.model, rates, config)
    start, warnings = restore_state(folder, setup.model, optimizers)
    steps = num_steps(config, len(setup.dataset))
    metrics = Metrics(folder)
    metrics.rewind(start)
    with _stop_requests() as stop, Progress(config.out, start, steps) as progress:
        for warning in warnings:
            progress.say(warning)
        batches = _batches(setup, config, start, steps)
        for step in range(start, steps):
            began = time.perf_counter()
            set_rate(optimizers, rate_at(step, steps=steps, warmup=config.warmup, min_rate=config.min_rate))
            row = train_step(setup.model, next(batches), optimizers, config)
            row = {"step": step + 1, **row, "rate": optimizers[0].param_groups[0]["lr"]}
            row["tokens_per_s"] = row.pop("tokens") / (time.perf_counter() - began)
            progress.show(row)
            if (step + 1) % config.log_every == 0 or step + 1 == steps:
                metrics.add(row)
            if (step + 1) % config.save_every == 0 or step + 1 == steps or stop.requested:
                save_state(folder, step + 1, setup.model, optimizers)
                plot_curves(metrics.rows, folder / "curves.png", CURVES)
            if stop.requested and step + 1 < steps:
                raise Interrupted(f"stopped at step {step + 1} of {steps}; run the same command to go on")


def num_steps(config: TrainConfig, num_samples: int) -> int:
    return config.steps or max(round(config.epochs * num_samples / config.batch_size), 1)


def train_step(
    model: nn.Module, micro_batches: list[Batch | CaptionBatch], optimizers: list, config: TrainConfig
) -> dict[str, float]:
    """One optimiser step over a batch in pieces, its loss normalised over the target tokens of the whole batch."""
    device = next(model.parameters()).device
    targets = sum(batch.num_targets for batch in micro_batches)
    total, logs = 0.0, {}
    for batch in micro_batches:
        with precision(config.precision, device):
            loss, logs = STAGES[config.stage].loss(model, batch.to(device), config)
        (loss / targets).backward()
        total += loss.item() / targets
    learned = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(learned, config.clip_norm or float("inf")).item()
    if not (torch.isfinite(torch.tensor(total)) and torch.isfinite(torch.tensor(norm))):
        raise TrainError(f"the loss is {total} and the gradient norm {norm}; lower learning_rate and run again")
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return {"loss": total, **logs, "grad_norm": norm, "tokens": targets}


@contextlib.contextmanager
def precision(wanted: str, device: torch.device) -> Iterator[None]:
    """bfloat16 arithmetic where the machine has instructions for it, and the attention that is fastest for training.

    On CPU the fused attention's backward pass is the slower one at the few hundred tokens of a sample.
    """
    has_bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    use_bf16 = wanted == "bf16" or (wanted == "auto" and has_bf16)
    with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16), contextlib.ExitStack() as stack:
        if device.type == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def _batches(setup: Setup, config: TrainConfig, start: int, stop: int) -> Iterator[list[Batch | CaptionBatch]]:
    sampler = BatchSampler(setup.dataset.lengths, batch_size=config.batch_size, seed=config.seed, start=start, stop=stop)
    micro, stage, pad = config.micro_batch or config.batch_size, STAGES[config.stage], setup.pad

    def pieces(samples: list) -> list[Batch | CaptionBatch]:
        return [stage.collate(samples[at : at + micro], pad=pad) for at in range(0, len(samples), micro)]

    loader = DataLoader(
        setup.dataset,
        batch_sampler=sampler,
        collate_fn=pieces,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        multiprocessing_context="fork" if config.workers else None,
    )
    return iter(loader)


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
