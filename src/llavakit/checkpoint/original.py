"""Folders of the original LLaVA code, put together from what each kind of them holds.

    whole       the language model and the projector; the vision tower inside (1.6) or in a folder of its own (v1, 1.5)
    delta       the same, but as the difference from a base (v0)
    projector   stage 1's: mm_projector alone, to be put on a base
    adapter     LoRA for a base, with the projector in non_lora_trainables

Which kind a folder is, its files and tensors tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.formats import (
    CONFIG_FILE,
    GENERATION_FILE,
    IMAGE_FILE,
    TOKENIZER_SETTINGS_FILE,
    read_optional,
    read_settings,
)
from llavakit.checkpoint.lora import ADAPTER, ADAPTER_CONFIG_FILE, PREFIX, add_adapter, read_adapter
from llavakit.checkpoint.picture_words import EMBEDDINGS, add_picture_words
from llavakit.checkpoint.reader import Reader, StoredTensor, Tensors
from llavakit.checkpoint.regular import is_there
from llavakit.checkpoint.remarks import OUR_KEY
from llavakit.checkpoint.rename import best_layout, by_our_names
from llavakit.checkpoint.sections import JSON, section_of, tower_fields
from llavakit.checkpoint.tables import ORIGINAL, TOWER_LAYOUTS
from llavakit.checkpoint.tokenizer_files import tokenizer_folder
from llavakit.checkpoint.towers import recognise
from llavakit.checkpoint.translate_original import translate_original
from llavakit.config import LlavaConfig, VisionConfig

PROJECTOR = "mm_projector"
_BESIDE_ADAPTER = "non_lora_trainables"
OWN_TOWER = "vision_tower"  # a folder in the folder, for a tower that is in no collection
_NEAR_NOTHING = 0.25  # a norm's weights lie around one; the difference of two norms lies around nothing


@dataclass(frozen=True)
class Parts:
    """What a folder may leave to others: the vision tower it was trained with, and the model that it changes."""

    vision_tower: Path | None = None
    base: Path | None = None


def read_original(folder: Path, config: JSON, parts: Parts, reader: Reader) -> tuple[LlavaConfig, Tensors]:
    """Configuration and tensors by our names; raises `CheckpointError` or `ConfigError` saying what is missing."""
    tensors = _without_tower(folder, config, parts.base, reader)
    is_inside = any(name.startswith("vision.") for name in tensors)
    if parts.vision_tower:
        vision = _tower_config(parts.vision_tower)
        if not is_inside:
            stored = reader.weights(parts.vision_tower)
            tensors |= by_our_names(stored, best_layout(stored, TOWER_LAYOUTS))
    elif is_inside and is_there(folder / OWN_TOWER / CONFIG_FILE):
        vision = _tower_config(folder / OWN_TOWER)
    elif is_inside and (known := recognise(tensors)):
        vision = known
    else:
        where = "holds the weights of its vision tower, but not what it is like" if is_inside else "has no vision tower"
        raise CheckpointError(f"{folder} {where}: give --vision-tower, the folder of {config.get('mm_vision_tower')!r}")
    generation = read_optional(folder / GENERATION_FILE)
    tokenizer = read_optional(tokenizer_folder(folder, parts.base) / TOKENIZER_SETTINGS_FILE)
    return translate_original(config, vision, generation=generation, tokenizer=tokenizer), tensors


def _without_tower(folder: Path, config: JSON, base: Path | None, reader: Reader) -> Tensors:
    if reader.has_weights(folder):
        own = by_our_names(reader.weights(folder), ORIGINAL)
        if OUR_KEY in config or not is_delta(own):  # what we export is whole
            if base:
                raise CheckpointError(f"{folder} is a whole model, which needs no base: leave --base out")
            return own
        return _add_base(own, _base(folder, config, base, reader), folder)
    adapter = reader.file(folder, ADAPTER)
    beside = reader.file(folder, _BESIDE_ADAPTER if adapter else PROJECTOR)
    if beside is None:
        return by_our_names(reader.weights(folder), ORIGINAL)  # which says what is missing
    own = by_our_names(_stripped(beside), ORIGINAL)
    tensors = _base(folder, config, base, reader)
    if adapter:
        settings = read_settings(folder / ADAPTER_CONFIG_FILE)
        return add_adapter(tensors | own, read_adapter(adapter, settings, str(folder)), ORIGINAL, str(folder))
    if words := own.pop(EMBEDDINGS, None):
        tensors = add_picture_words(tensors, words, config.get("vocab_size"), str(folder))
    return tensors | own


def _base(folder: Path, config: JSON, base: Path | None, reader: Reader) -> Tensors:
    if base is None:
        raise CheckpointError(
            f"{folder} is only a part or a change of a language model: give --base, the folder of the model it was "
            f"made from (its config.json says {config.get('_name_or_path')!r})"
        )
    tensors = by_our_names(reader.weights(base), ORIGINAL)
    if EMBEDDINGS not in tensors:
        raise CheckpointError(f"--base {base} holds no language model, and {folder} was made from one")
    return tensors


def _stripped(stored: Tensors) -> Tensors:
    """Without what PEFT and the original's trainer put before their names; the projector's may lack `model.`."""
    plain = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items()}
    return {f"model.{name}" if name.startswith(PROJECTOR) else name: tensor for name, tensor in plain.items()}


def is_delta(tensors: Tensors) -> bool:
    norm = tensors.get("language.norm.weight")
    return norm is not None and norm.read().float().mean().abs().item() < _NEAR_NOTHING


def _add_base(delta: Tensors, base: Tensors, folder: Path) -> Tensors:
    """Each tensor of a delta with the base's added; more words than the base has stand behind its own."""
    changed = {name for name in delta if name.startswith("language.")}
    if odd := sorted(changed ^ base.keys()):
        raise CheckpointError(
            f"{folder} is no change of the model in --base: {', '.join(odd[:5])}{' and more' * (len(odd) > 5)} "
            f"{'stand' if len(odd) > 1 else 'stands'} in one of them alone; give the language model it was made from"
        )
    return {name: _sum(tensor, base[name], folder) if name in changed else tensor for name, tensor in delta.items()}


def _sum(delta: StoredTensor, base: StoredTensor, folder: Path) -> StoredTensor:
    fits = len(delta.shape) == len(base.shape) and all(a >= b for a, b in zip(delta.shape, base.shape, strict=True))
    if not fits:
        raise CheckpointError(f"{folder}: {delta.name} is {list(delta.shape)}, but the base has {list(base.shape)}")

    def read() -> Tensor:
        # In the type it is stored in, as the original's tool adds it.
        total = delta.read().clone()
        total[tuple(slice(side) for side in base.shape)] += base.read().to(total.dtype)
        return total

    return StoredTensor(delta.name, delta.shape, delta.dtype, read)


def _tower_config(folder: Path) -> VisionConfig:
    """From a tower's folder, whether it holds the tower alone or the text tower too."""
    config = read_settings(folder / CONFIG_FILE)
    image = read_optional(folder / IMAGE_FILE)
    given = section_of(config, "vision_config") if "vision_config" in config else config
    whole = config.get("model_type")
    if whole in ("clip", "siglip"):
        given = {"model_type": f"{whole}_vision_model"} | given
    return VisionConfig.parse(tower_fields(given, image, where=f"{folder / CONFIG_FILE}: "))
