"""A model by its name, on the device and in the number format asked for."""

from __future__ import annotations

from pathlib import Path

import torch

from llavakit import kernels
from llavakit.checkpoint.contents import Parts
from llavakit.checkpoint.formats import read_chat_template
from llavakit.checkpoint.load import Loaded, load, locate
from llavakit.cli.options import OWN_TEMPLATE, Device, DType
from llavakit.config import VisualMethod, VisualTokens
from llavakit.kernels.threads import cores
from llavakit.processing.jinja import JinjaTemplate
from llavakit.processing.templates import find_template


def open_model(
    name: str,
    *,
    vision_tower: Path | None,
    base: Path | None,
    device: Device,
    dtype: DType,
    threads: int | None,
    visual_tokens: VisualTokens | None = None,
) -> Loaded:
    """Load a checkpoint folder or a model of the catalogue; raises ValueError if device or cores are not there."""
    set_threads(threads)
    return load(
        name,
        parts=Parts(vision_tower, base),
        device=choose_device(device),
        dtype=number_format(dtype),
        visual_tokens=visual_tokens,
    )


def set_threads(count: int | None) -> None:
    """Compute with so many CPU threads, or with all cores; ValueError for more than there are."""
    if count is not None:
        kernels.set_num_threads(count)
    elif torch.get_num_threads() > cores():
        torch.set_num_threads(cores())  # it does not know how much of their time there is


def open_template(name: str | None, *, model: str) -> str | JinjaTemplate | None:
    """A template that exists, told before a model is opened; OWN_TEMPLATE is the one that came with the model.

    Raises ValueError that names the nearest template, or says that this model came with none.
    """
    if name == OWN_TEMPLATE:
        return JinjaTemplate(read_chat_template(locate(model)))
    if name is not None:
        find_template(name)
    return name


def visual_tokens_of(count: int | None, method: VisualMethod | None, after_layer: int | None) -> VisualTokens | None:
    """The three options as one setting; raises ValueError for how and where without a number."""
    if count is not None:
        return VisualTokens.parse({"count": count, "method": method or "attention", "after_layer": after_layer})
    for option, value in (("--visual-method", method), ("--after-layer", after_layer)):
        if value is not None:
            raise ValueError(f"{option} {value} needs --visual-tokens, the number a view is brought down to")
    return None


def number_format(dtype: DType) -> torch.dtype | None:
    """The number format asked for; None leaves it to what the weights are and where they go."""
    return None if dtype == "auto" else getattr(torch, dtype)


def choose_device(device: Device) -> str:
    """`auto` is the best there is; a device that was asked for by name has to be there."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, is_present in present.items() if is_present)
    if not present[device]:
        usable = ", ".join(name for name, is_present in present.items() if is_present)
        raise ValueError(f"PyTorch finds no {device} device on this machine; usable here: {usable}")
    return device
