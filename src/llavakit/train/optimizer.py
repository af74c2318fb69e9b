"""Which parameters learn, how fast, and how the rate changes over a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from torch import nn
from torch.nn import Parameter
from torch.optim import AdamW, Muon, Optimizer

from llavakit.train.config import TrainConfig


def learning(model: nn.Module, rates: Mapping[str, float]) -> Iterator[tuple[str, Parameter, float]]:
    """Name, parameter and top rate of everything that learns; `rates` names parts of the model, "" all of it."""
    for name, parameter in model.named_parameters():
        for part, rate in rates.items():
            if rate and (not part or name == part or name.startswith(part + ".")):
                yield name, parameter, rate


def freeze_rest(model: nn.Module, rates: Mapping[str, float]) -> None:
    """Spare what does not learn its gradients."""
    learns = {name for name, _, _ in learning(model, rates)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learns)


def make_optimizers(model: nn.Module, rates: Mapping[str, float], config: TrainConfig) -> list[Optimizer]:
    """AdamW for everything that learns or, with `muon`, Muon (Jordan et al. 2024) for the matrices inside layers.

    Each group remembers its top rate as `peak`. Weight decay is for matrices: it spares norms, biases and embeddings.
    """
    groups: dict[tuple[bool, bool, float], list[Parameter]] = {}
    for name, parameter, rate in learning(model, rates):
        matrix = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        inner = matrix and config.optimizer == "muon"
        groups.setdefault((inner, matrix, rate), []).append(parameter)
    adamw, muon = [], []
    for (inner, decays, rate), parameters in groups.items():
        group = {"params": parameters, "lr": rate, "peak": rate, "weight_decay": config.weight_decay * decays}
        (muon if inner else adamw).append(group)
    optimizers: list[Optimizer] = []
    if adamw:
        optimizers.append(AdamW(adamw, betas=config.betas))
    if muon:
        optimizers.append(Muon(muon, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def rate_at(step: int, *, steps: int, warmup: float, min_rate: float) -> float:
    """The share of the top rate in effect at `step` of `steps`: a straight rise, then half a cosine."""
    rise = math.ceil(warmup * steps)
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(steps - rise, 1)
    return min_rate + (1 - min_rate) * (1 + math.cos(math.pi * progress)) / 2


def set_rate(optimizers: list[Optimizer], share: float) -> None:
    """Put every group at that share of its top rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
