"""A checkpoint folder in a few words: what it is, and how it is taken."""

from __future__ import annotations

from llavakit.checkpoint.findings import Seen
from llavakit.checkpoint.formats import CONFIG_FILE, FOR_LLAMA_CPP, NATIVE_FORMAT, TOKENIZER_FILE, part_of_a_model
from llavakit.checkpoint.lora import ADAPTER_CONFIG_FILE
from llavakit.checkpoint.original import PROJECTOR
from llavakit.checkpoint.reader import Reader
from llavakit.checkpoint.regular import is_there
from llavakit.checkpoint.tokenizer_files import SENTENCEPIECE_FILE, tokenizer_folder
from llavakit.checkpoint.towers import built_as
from llavakit.config import LlavaConfig
from llavakit.quantize.schemes import describe, find_scheme


def what_it_is(seen: Seen) -> str:
    """In a few words, from the files there are and the configuration's own words."""
    folder, config = seen.folder, seen.config
    if not folder.is_dir():
        return "no folder" if not folder.exists() else "a file, not a folder"
    maker = "an original LLaVA" if seen.is_original else "a llava-hf model" if seen.is_hf else ""
    if config.get("format") == NATIVE_FORMAT:
        return "a native llavakit model"
    if (folder / ADAPTER_CONFIG_FILE).is_file():
        return "a LoRA adapter of the original's code" if seen.is_original else "a LoRA adapter (PEFT)"
    if seen.is_original and not Reader().has_weights(folder) and any(folder.glob(f"{PROJECTOR}.*")):
        return "a projector of the original's stage 1"
    if seen.is_original and seen.contents and seen.parts.base:
        return "an original LLaVA, as the difference from its base"
    if maker:
        kind = config.get("model_type")
        return f"{maker} (model_type {kind!r})" if kind else maker
    if part := part_of_a_model(dict(config)):
        return part[0]
    if "model_type" in config:
        return f"a model of type {config['model_type']!r}"
    if (folder / CONFIG_FILE).exists():
        return "a folder with a config.json" if config else "a folder with a config.json that cannot be read"
    return FOR_LLAMA_CPP if any(folder.glob("*.gguf")) else "a folder without a configuration"


def treated_as(seen: Seen) -> dict[str, str]:
    """How it is taken, row by row."""
    assert seen.contents is not None
    config, scheme = seen.contents.config, seen.contents.scheme
    return {
        "format": seen.contents.format,
        "variant": variant(config),
        "vision tower": _tower(seen),
        "template": config.template,
        "pictures": _pictures(config),
        "compat": config.tiling.compat if config.tiling else "no matter: one view a picture",
        "tokenizer": _tokenizer(seen),
        "context": f"{config.language.max_positions:,} tokens",
        **({"scheme": f"{scheme}: {describe(find_scheme(scheme))}"} if scheme else {}),
    }


def foretold(config: LlavaConfig) -> dict[str, str]:
    """The rows that the configuration alone is enough for."""
    return {
        "variant": variant(config),
        "template": config.template,
        "context": f"{config.language.max_positions:,} tokens",
    }


def variant(config: LlavaConfig) -> str:
    """Which member of the family it is built as, whatever it is called."""
    if config.tiling and config.tiling.max_tiles:
        likeness = "as LLaVA-OneVision"
    elif config.tiling:
        likeness = "as LLaVA-1.6 (NeXT)"
    else:
        likeness = "as LLaVA v1" if config.projector.kind == "linear" else "as LLaVA-1.5"
    return f"{likeness}: projector {config.projector.kind}, resize mode {config.resize_mode}"


def _tower(seen: Seen) -> str:
    assert seen.contents is not None
    named = built_as(seen.contents.config.vision, may_be_cut=True)
    if seen.has_own_tower or seen.contents.format == NATIVE_FORMAT:
        place = "inside"
    else:
        place = f"from {seen.parts.vision_tower}" if seen.parts.vision_tower else "inside its base"
    return f"{place}, of the shape of {named}" if named else place


def _pictures(config: LlavaConfig) -> str:
    if config.tiling is None:
        return f"{config.resize_mode}, {config.vision.num_features} tokens each"
    return f"{config.resize_mode}, {len(config.tiling.pinpoints)} canvases, merge {config.tiling.merge}"


def _tokenizer(seen: Seen) -> str:
    folder = tokenizer_folder(seen.folder, seen.parts.base)
    name = next((name for name in (TOKENIZER_FILE, SENTENCEPIECE_FILE) if is_there(folder / name)), None)
    if name is None:
        return "none"
    made = ", converted" if name == SENTENCEPIECE_FILE else ""
    return f"{name}{made}" if folder == seen.folder else f"{name} of {folder}{made}"
