"""What a checkpoint folder holds, whatever its format: a configuration, and the tensors by our names, not yet read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.formats import CONFIG_FILE, Format, read_config, read_optional, read_scheme, read_settings
from llavakit.checkpoint.lora import ADAPTER, ADAPTER_CONFIG_FILE, add_adapter, read_adapter
from llavakit.checkpoint.original import Parts, read_original
from llavakit.checkpoint.reader import Reader, Tensors
from llavakit.checkpoint.regular import is_there
from llavakit.checkpoint.remarks import with_remarks
from llavakit.checkpoint.rename import best_layout, by_our_names, rename
from llavakit.checkpoint.tables import LLAVA_HF_LAYOUTS, ORIGINAL, Table, unused_layers
from llavakit.checkpoint.translate_original import is_original
from llavakit.config import ConfigError, LlavaConfig

NO_PARTS = Parts()
_SAFE = Reader()


@dataclass(frozen=True)
class Contents:
    """A whole model on disk."""

    config: LlavaConfig
    format: Format
    tensors: Tensors
    scheme: str | None = None  # by which it is quantised


def read_contents(folder: Path, parts: Parts = NO_PARTS, reader: Reader = _SAFE) -> Contents:
    """A folder of any format together with the `parts` it needs; reads headers and single vectors, no more.

    Raises `CheckpointError` saying what is wrong, or which part is missing.
    """
    folder = Path(folder)
    if is_there(folder / ADAPTER_CONFIG_FILE) and not is_there(folder / CONFIG_FILE):
        return _adapter(folder, parts, reader)
    data = read_optional(folder / CONFIG_FILE)
    if is_original(data):
        try:
            config, tensors = read_original(folder, data, parts, reader)
            config = with_remarks(config, data)
        except ConfigError as error:
            raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from error
        return _finish(config, "original", tensors)
    config, format = read_config(folder)
    scheme = _scheme(folder, data) if format == "llavakit" else None
    config = with_remarks(config, data) if format != "llavakit" else config
    if parts != NO_PARTS:
        raise CheckpointError(f"{folder} is whole ({format} format): it needs no other vision tower and no base")
    stored = reader.weights(folder)
    layout = best_layout(stored, LLAVA_HF_LAYOUTS) if format == "llava-hf" else ()
    return _finish(config, format, by_our_names(stored, layout), scheme)


def _scheme(folder: Path, data: dict[str, Any]) -> str | None:
    try:
        return read_scheme(data)
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from error


def _adapter(folder: Path, parts: Parts, reader: Reader) -> Contents:
    """A PEFT adapter, which is nothing without the model it was trained on."""
    config: Mapping[str, Any] = read_settings(folder / ADAPTER_CONFIG_FILE)
    if parts.base is None:
        named = config.get("base_model_name_or_path")
        raise CheckpointError(f"{folder} is an adapter alone: give --base, the folder of {named!r}")
    base = read_contents(parts.base, Parts(vision_tower=parts.vision_tower), reader)
    if base.scheme:
        raise CheckpointError(
            f"--base {parts.base} is quantised ({base.scheme}), and an adapter is for the model before that: "
            "give that one"
        )
    stored = reader.file(folder, ADAPTER)
    if stored is None:
        raise CheckpointError(f"{folder} has an {ADAPTER_CONFIG_FILE}, but no {ADAPTER}.safetensors")
    adapter = read_adapter(stored, config, str(folder))
    table: Table = ORIGINAL if base.format == "original" else ()
    if base.format == "llava-hf":
        table = best_layout([*adapter.pairs, *adapter.whole], LLAVA_HF_LAYOUTS)
    return _finish(base.config, base.format, add_adapter(base.tensors, adapter, table, str(folder)))


def _finish(config: LlavaConfig, format: Format, tensors: Tensors, scheme: str | None = None) -> Contents:
    """Without the tensors that are known to be useless."""
    _check_depth(config, len(tensors))
    droppable = unused_layers(config.vision)
    kept = {name: tensor for name, tensor in tensors.items() if rename(name, droppable) is None}
    if config.tiling is None or not config.tiling.with_newline:
        kept.pop("image_newline", None)  # some that show one view a picture were saved with it
    if config.language.tie_embeddings:
        _drop_tied_head(kept)
    return Contents(config, format, kept, scheme)


def _check_depth(config: LlavaConfig, num_tensors: int) -> None:
    """A layer has tensors, so there cannot be more layers; before anything is made of as many as a file may claim."""
    for part, num_layers in (
        ("vision tower", config.vision.num_layers),
        ("language model", config.language.num_layers),
    ):
        if num_layers > num_tensors:
            raise CheckpointError(
                f"the configuration gives the {part} {num_layers:,} layers, but there are only {num_tensors:,} tensors"
            )


def _drop_tied_head(tensors: Tensors) -> None:
    """A tied output matrix may be stored again beside the embeddings, but then it must be the same."""
    head, embeddings = tensors.get("language.lm_head.weight"), tensors.get("language.embed_tokens.weight")
    if head is None or embeddings is None:
        return
    if head.shape != embeddings.shape or not torch.equal(head.read(), embeddings.read()):
        raise CheckpointError(f"the configuration ties {head.name} to {embeddings.name}, but the two differ")
    del tensors["language.lm_head.weight"]
