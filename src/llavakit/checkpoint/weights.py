"""A model from a folder: built without memory, then given the stored tensors, no key missing, none left over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.formats import Format, read_config
from llavakit.checkpoint.reader import StoredTensor, stored_tensors
from llavakit.checkpoint.rename import best_layout, rename
from llavakit.checkpoint.tables import LLAVA_HF_LAYOUTS, unused_layers
from llavakit.config import LlavaConfig
from llavakit.model import Llava

_FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def load_model(folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Llava:
    """The model of a native or llava-hf folder, in evaluation mode.

    `dtype` None keeps the stored type (that of the embeddings, where types are mixed), except that 16-bit weights are
    widened to float32 on a CPU: exact, and most CPUs compute 16-bit numbers more slowly or not at all.
    Weights that need no conversion stay mapped from their file. Raises `CheckpointError` naming every key at fault.
    """
    config, format = read_config(folder)
    stored = stored_tensors(folder)
    wanted = _native_names(stored, config, format)
    with torch.device("meta"):
        model = Llava(config)
    fill(model, wanted, device=torch.device(device), dtype=dtype, source=folder)
    return model.eval()


def fill(
    model: nn.Module,
    stored: Mapping[str, StoredTensor],
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    source: Path,
) -> None:
    """Give a model made on `meta` its tensors, `stored` by the model's own names; strict about names and shapes."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = [
        *_listed("missing", [name for name in expected if name not in stored]),
        *_listed("not used", [tensor.name for name, tensor in stored.items() if name not in expected]),
        *_listed(
            "of another shape than the configuration says",
            [
                f"{tensor.name} {list(tensor.shape)} instead of {list(expected[name])}"
                for name, tensor in stored.items()
                if name in expected and tensor.shape != expected[name]
            ],
        ),
        *_listed(
            "not floating-point numbers",
            [f"{tensor.name} ({tensor.dtype})" for tensor in stored.values() if tensor.dtype not in _FLOATS],
        ),
    ]
    if problems:
        raise CheckpointError(f"the weights in {source} do not fit their configuration: {'; '.join(problems)}")
    dtype = dtype or _natural_dtype(stored, device)
    model.load_state_dict(
        {name: tensor.read().to(device=device, dtype=dtype) for name, tensor in stored.items()}, assign=True
    )


def _native_names(stored: Mapping[str, StoredTensor], config: LlavaConfig, format: Format) -> dict[str, StoredTensor]:
    """The tensors by our names, without those that are known to be useless; an unknown name stays as it is."""
    layout = best_layout(stored, LLAVA_HF_LAYOUTS) if format == "llava-hf" else ()
    droppable = unused_layers(config.vision)
    native: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        row = rename(name, layout)
        ours = row.ours if row else name
        if ours is not None and rename(ours, droppable) is None:
            native[ours] = tensor
    if config.language.tie_embeddings:
        _drop_tied_head(native)
    return native


def _drop_tied_head(native: dict[str, StoredTensor]) -> None:
    """A tied output matrix may be stored again beside the embeddings, but then it must be the same."""
    head, embeddings = native.get("language.lm_head.weight"), native.get("language.embed_tokens.weight")
    if head is None or embeddings is None:
        return
    if head.shape != embeddings.shape or not torch.equal(head.read(), embeddings.read()):
        raise CheckpointError(f"the configuration ties {head.name} to {embeddings.name}, but the two differ")
    del native["language.lm_head.weight"]


def _natural_dtype(stored: Mapping[str, StoredTensor], device: torch.device) -> torch.dtype:
    embeddings = next(tensor for name, tensor in stored.items() if name.endswith("embed_tokens.weight"))
    dtype = _FLOATS[embeddings.dtype]
    return torch.float32 if device.type == "cpu" and dtype.itemsize < 4 else dtype


def _listed(what: str, names: list[str], limit: int = 8) -> list[str]:
    """At most one line: the names, so many of them, that are `what`."""
    if not names:
        return []
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return [f"{what}: {', '.join(names[:limit])}{more}"]
