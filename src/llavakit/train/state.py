"""What a run needs to go on as if it had never stopped: the learned weights, the optimisers' memory, the step."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.tensors import read_tensors, save_tensors

KEEP = 2  # whole checkpoints kept in a run folder


class TrainError(ValueError):
    """A run that cannot start or go on; the message says why and what to do."""


def save_state(folder: Path, step: int, model: nn.Module, optimizers: list[Optimizer]) -> Path:
    """Write step-NNNNNNNN.safetensors, whole or not at all, then drop all but the newest few."""
    tensors = {f"model/{name}": p for name, p in model.named_parameters() if p.requires_grad}
    for number, optimizer in enumerate(optimizers):
        for index, memory in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{index}/{key}": value for key, value in memory.items()}
    path = folder / f"step-{step:08d}.safetensors"
    save_tensors(path, tensors, {"step": step})
    for old in checkpoints(folder)[:-KEEP]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted(folder.glob("step-????????.safetensors"))


def restore_state(folder: Path, model: nn.Module, optimizers: list[Optimizer]) -> tuple[int, list[str]]:
    """Put the newest whole checkpoint back; returns its step (0 without one) and a sentence for each damaged one."""
    warnings = []
    for path in reversed(checkpoints(folder)):
        try:
            tensors, data = read_tensors(path)
        except CheckpointError as error:
            warnings.append(f"{error}; using the one before")
            continue
        _restore(tensors, model, optimizers)
        return data["step"], warnings
    return 0, warnings


def _restore(tensors: dict, model: nn.Module, optimizers: list[Optimizer]) -> None:
    learned = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
    expected = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if set(learned) != expected:
        raise TrainError(f"the checkpoint trains other parameters than this run: {sorted(set(learned) ^ expected)[:5]}")
    model.load_state_dict(learned, strict=False)
    memories: list[dict[int, dict]] = [{} for _ in optimizers]
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, number, index, key = name.split("/")
            memories[int(number)].setdefault(int(index), {})[key] = value
    for optimizer, memory in zip(optimizers, memories, strict=True):
        optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})
