"""A LoRA adapter merged into the model it was trained on: an import, and a comparison of what was merged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.contents import Contents, Parts
from llavakit.checkpoint.importing import import_checkpoint
from llavakit.checkpoint.load import load
from llavakit.checkpoint.lora import ADAPTER_CONFIG_FILE, Adapted
from llavakit.checkpoint.regular import is_there
from llavakit.checkpoint.weights import fill
from llavakit.model import Images, Llava
from llavakit.model.empty import empty
from llavakit.processing import Conversation, Inputs

MAX_COMPARED = 10**9  # parameters: two such models in float32 take 8 GB and some seconds
QUESTION = "What is in the picture?"


@dataclass(frozen=True)
class Merged:
    """What was merged: weights changed, and how far the logits of a built-in question moved at most.

    `effect` is by the adapter, `error` by keeping the sum in one matrix of the stored type; None for a large model.
    """

    num_weights: int
    effect: float | None = None
    error: float | None = None


def merge_adapter(
    adapter: Path, out: Path, *, parts: Parts, dtype: torch.dtype | None = None, allow_pickle: bool = False
) -> Merged:
    """Write `out`, a native folder, from an adapter and `parts.base`.

    Raises `CheckpointError` as importing does, which leaves no key unused, and for a folder that is no adapter.
    """
    if not is_there(adapter / ADAPTER_CONFIG_FILE):
        raise CheckpointError(
            f"{adapter} is no LoRA adapter, it has no {ADAPTER_CONFIG_FILE}: `llava import` takes other folders"
        )
    contents = import_checkpoint(adapter, out, parts=parts, dtype=dtype, allow_pickle=allow_pickle)
    adapted = {name: tensor for name, tensor in contents.tensors.items() if isinstance(tensor, Adapted)}
    size = sum(weight.numel() for weight in empty(contents.config).parameters())
    if size > MAX_COMPARED:
        return Merged(len(adapted))
    merged = load(out, dtype=torch.float32)
    inputs = merged.processor(Conversation().ask(Image.radial_gradient("L").convert("RGB"), QUESTION))
    base = _unmerged(contents, adapted)
    before = _logits(base, inputs)
    _hang_on(base, adapted)
    beside = _logits(base, inputs)
    after = _logits(merged.model, inputs)
    return Merged(len(adapted), effect=_apart(before, beside), error=_apart(beside, after))


def _unmerged(contents: Contents, adapted: dict[str, Adapted]) -> Llava:
    """The model with all that the adapter's folder brings but the adapter."""
    model = empty(contents.config)
    tensors = contents.tensors | {name: tensor.weight for name, tensor in adapted.items()}
    fill(model, tensors, device=torch.device("cpu"), dtype=torch.float32, source=Path())
    return model.eval()


def _hang_on(model: Llava, adapted: dict[str, Adapted]) -> None:
    """Compute the adapter beside the weights, as in training."""
    for name, tensor in adapted.items():
        a, b, scale = tensor.a.read().float(), tensor.b.read().float(), tensor.scale

        def add(module: nn.Module, given: tuple[Tensor], out: Tensor, a=a, b=b, scale=scale) -> Tensor:
            return out + scale * F.linear(F.linear(given[0], a), b)

        model.get_submodule(name.removesuffix(".weight")).register_forward_hook(add)


@torch.inference_mode()
def _logits(model: Llava, inputs: Inputs) -> Tensor:
    tokens = torch.tensor([inputs.tokens])
    images = Images(pixels=inputs.pixels, sizes=inputs.sizes)
    return model.language.logits(model(tokens, images, torch.arange(tokens.shape[1])[None]))


def _apart(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()
