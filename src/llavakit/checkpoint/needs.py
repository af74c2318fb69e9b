"""What a folder of the original's lacks to be a whole model, all of it at once, and the command that takes it in."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from llavakit.checkpoint.findings import Finding, Seen
from llavakit.checkpoint.lora import ADAPTER, ADAPTER_CONFIG_FILE
from llavakit.checkpoint.original import PROJECTOR
from llavakit.checkpoint.reader import PICKLED_WEIGHTS_FILE, PICKLES, Reader
from llavakit.checkpoint.towers import KNOWN
from llavakit.checkpoint.translate_original import translate_original
from llavakit.config import LlavaConfig, VisionConfig


def way_in(seen: Seen, *, needs_base: bool = False) -> Iterator[Finding]:
    """The parts that are not here, told from files and configuration alone, and the whole command with them.

    `needs_base` where the tensors have shown that it is a delta, which no file name tells.
    """
    is_adapter = _has(seen.folder, ADAPTER) and (seen.folder / ADAPTER_CONFIG_FILE).is_file()
    is_projector = _has(seen.folder, PROJECTOR) and not Reader().has_weights(seen.folder)
    if not (is_adapter or (seen.is_original and (is_projector or Reader().has_weights(seen.folder)))):
        return
    options, lacks = [], []
    if seen.parts.vision_tower or (seen.is_original and not _has_tower(seen)):
        named = seen.config.get("mm_vision_tower")
        options += ["--vision-tower", str(seen.parts.vision_tower or "VISION-TOWER")]
        lacks += [] if seen.parts.vision_tower else [f"a vision tower ({named!r})"]
    if seen.parts.base or is_adapter or is_projector or needs_base:
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
    beside = {name: seen.beside(f"{name}_config.json") for name in ("generation", "tokenizer")}
    return translate_original(config, tower, **beside)


def _has(folder: Path, stem: str) -> bool:
    return any((folder / f"{stem}{suffix}").is_file() for suffix in (".safetensors", ".bin"))


def _has_tower(seen: Seen) -> bool:
    index = seen.beside(f"{PICKLED_WEIGHTS_FILE}.index.json").get("weight_map")
    return seen.has_own_tower or (isinstance(index, dict) and any("vision_tower." in str(name) for name in index))


def _is_pickled(folder: Path) -> bool:
    suffixes = {path.suffix for path in folder.iterdir()} if folder.is_dir() else set()
    return ".safetensors" not in suffixes and not suffixes.isdisjoint(PICKLES)
