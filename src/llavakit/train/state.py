"""What a run needs to go on as if it had never stopped: the learned weights, the optimisers' memory, the step."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.tensors import read_tensors, save_tensors
from llavakit.train.config import TrainError

KEEP = 2  # whole checkpoints kept in a run folder


def save_state(folder: Path, step: int, model: nn.Module, optimizers: list[Optimizer]) -> Path:
    """Write step-NNNNNNNN.safetensors, whole or not at all, then drop all but the newest few.

    Raises `TrainError` if the disk does not take it; the checkpoints before are still there then.
    """
    tensors = {f"model/{name}": p for name, p in model.named_parameters() if p.requires_grad}
    for number, optimizer in enumerate(optimizers):
        for index, memory in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{index}/{key}": value for key, value in memory.items()}
    path = folder / f"step-{step:08d}.safetensors"
    try:
        save_tensors(path, tensors, {"step": step})
    except CheckpointError as error:
        raise TrainError(f"{error}. Make room and run the same command to go on from the checkpoint before") from error
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
            warnings.append(f"{error}; going on from the one before")
            continue
        _restore(tensors, model, optimizers)
        return data["step"], warnings
    if warnings:
        warnings.append(f"no whole checkpoint is left in {folder}; beginning again from the first step")
    return 0, warnings


def _restore(tensors: dict[str, Tensor], model: nn.Module, optimizers: list[Optimizer]) -> None:
    learned = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
    expected = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if set(learned) != expected:
        raise TrainError(f"the checkpoint trains other parameters than this run: {sorted(set(learned) ^ expected)[:5]}")
    model.load_state_dict(learned, strict=False)
    memories: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, number, index, key = name.split("/")
            # A copy: what is read lies in the mapped file, which later steps would keep on the disk.
            memories[int(number)].setdefault(int(index), {})[key] = value.clone()
    for optimizer, memory in zip(optimizers, memories, strict=True):
        optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})
