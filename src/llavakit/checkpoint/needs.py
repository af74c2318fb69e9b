"""What a folder of the original's lacks to be a whole model, all of it at once, and the command that takes it in."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from llavakit.checkpoint.findings import Finding, Seen
from llavakit.checkpoint.formats import GENERATION_FILE, TOKENIZER_SETTINGS_FILE
from llavakit.checkpoint.lora import ADAPTER, ADAPTER_CONFIG_FILE
from llavakit.checkpoint.original import PROJECTOR, is_delta
from llavakit.checkpoint.reader import PICKLED_WEIGHTS_FILE, PICKLES, Reader, file_of
from llavakit.checkpoint.remarks import OUR_KEY
from llavakit.checkpoint.rename import by_our_names
from llavakit.checkpoint.tables import ORIGINAL
from llavakit.checkpoint.towers import KNOWN
from llavakit.checkpoint.translate_original import translate_original
from llavakit.config import LlavaConfig, VisionConfig


def way_in(seen: Seen) -> Iterator[Finding]:
    """The parts that are not here, told from files, names of tensors and configuration, and the command with them."""
    is_adapter = file_of(seen.folder, ADAPTER) and (seen.folder / ADAPTER_CONFIG_FILE).is_file()
    is_projector = file_of(seen.folder, PROJECTOR) and not Reader().has_weights(seen.folder)
    if not (is_adapter or (seen.is_original and (is_projector or Reader().has_weights(seen.folder)))):
        return
    options, lacks = [], []
    if seen.parts.vision_tower or (seen.is_original and not _has_tower(seen)):
        named = seen.config.get("mm_vision_tower")
        options += ["--vision-tower", str(seen.parts.vision_tower or "VISION-TOWER")]
        lacks += [] if seen.parts.vision_tower else [f"a vision tower ({named!r})"]
    if seen.parts.base or is_adapter or is_projector or _is_delta(seen):
        named = seen.beside(ADAPTER_CONFIG_FILE).get("base_model_name_or_path") or seen.config.get("_name_or_path")
        options += ["--base", str(seen.parts.base or "BASE")]
        lacks += [] if seen.parts.base else [f"the model it was made from ({named!r})"]
    if any(map(_is_pickled, filter(None, (seen.folder, seen.parts.vision_tower, seen.parts.base)))):
        options.append("--allow-pickle")
    command = shlex.join(["llava", "import", str(seen.folder), "--out", "NEW", *options])
    says = f"it lacks {' and '.join(lacks)}" if lacks else "all that it needs is here"
    yield Finding("note", says, f"to take it in: {command}")


def foreseen(seen: Seen) -> LlavaConfig:
    """What config.json says of a model whose tensors cannot be read yet; its tower is filled in where it is not known.

    Raises `ConfigError` where that is too little.
    """
    config = dict(seen.config)
    tower = KNOWN.get(str(config.get("mm_vision_tower"))) or VisionConfig(
        **{"hidden_size": config["mm_hidden_size"], "num_heads": 1} if "mm_hidden_size" in config else {}
    )
    generation, tokenizer = seen.beside(GENERATION_FILE), seen.beside(TOKENIZER_SETTINGS_FILE)
    return translate_original(config, tower, generation=generation, tokenizer=tokenizer)


def _is_delta(seen: Seen) -> bool:
    """No name of a file tells a delta; its tensors do."""
    return is_delta(by_our_names(seen.stored, ORIGINAL)) and OUR_KEY not in seen.config


def _has_tower(seen: Seen) -> bool:
    index = seen.beside(f"{PICKLED_WEIGHTS_FILE}.index.json").get("weight_map")
    return seen.has_own_tower or (isinstance(index, dict) and any("vision_tower." in str(name) for name in index))


def _is_pickled(folder: Path) -> bool:
    suffixes = {path.suffix for path in folder.iterdir()} if folder.is_dir() else set()
    return ".safetensors" not in suffixes and not suffixes.isdisjoint(PICKLES)
