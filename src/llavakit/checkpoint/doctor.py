"""What a checkpoint folder is, how it is taken, and what is wrong or unusual with it.

It asks the code that loads, step by step, and puts down what that says. Headers are read and no weights, unless asked
for; pickles never.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.contents import NO_PARTS, Contents, Parts, read_contents
from llavakit.checkpoint.findings import Finding, Seen
from llavakit.checkpoint.formats import CONFIG_FILE, NATIVE_FORMAT, TOKENIZER_FILE, read_json
from llavakit.checkpoint.known_configs import recognised
from llavakit.checkpoint.load import tokenizer_of
from llavakit.checkpoint.lora import ADAPTER, ADAPTER_CONFIG_FILE
from llavakit.checkpoint.original import PROJECTOR
from llavakit.checkpoint.reader import PICKLES, Reader, Tensors
from llavakit.checkpoint.tokenizer_files import SENTENCEPIECE_FILE, tokenizer_folder
from llavakit.checkpoint.towers import KNOWN as KNOWN_TOWERS
from llavakit.checkpoint.weights import misfits
from llavakit.config import LlavaConfig, VisionConfig
from llavakit.model import Llava

T = TypeVar("T")
_LFS_POINTER = b"version https://git-lfs"
_SAFETENSORS = ".safetensors"


@dataclass
class Diagnosis:
    """What came out. `treated_as` is empty where the folder cannot be read at all."""

    folder: Path
    what: str
    treated_as: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return not any(finding.severity == "wrong" for finding in self.findings)


def examine(folder: Path, parts: Parts = NO_PARTS, *, with_weights: bool = False) -> Diagnosis:
    """Look a folder over, whatever is in it; raises nothing for what it finds.

    `with_weights` reads every tensor once as well, for numbers that are none.
    """
    findings: list[Finding] = []
    config: dict[str, Any] = {}
    if (folder / CONFIG_FILE).is_file():
        config = _attempt(findings, lambda: read_json(folder / CONFIG_FILE)) or {}
    broken = bool(findings)
    contents = None if broken else _attempt(findings, lambda: read_contents(folder, parts))
    seen = Seen(folder, parts, config, contents, _own_tensors(folder))
    diagnosis = Diagnosis(folder, _what(seen), findings=findings)
    if contents is None:
        damaged = list(_damaged(folder))
        findings[:] = [finding for finding in findings if finding.says not in {file.says for file in damaged}]
        findings += [*damaged, *_hints(seen)]
    else:
        findings += _attempt(findings, lambda: list(_fit(contents))) or []
        tokenizer = _attempt(findings, lambda: tokenizer_of(folder, parts, contents.config))
        if tokenizer is not None:
            findings += _vocabulary(contents.config, tokenizer.size)
        findings += [*_numbers(contents), *_dropped(seen)]
        if with_weights:
            findings += _attempt(findings, lambda: list(_weights(contents.tensors))) or []
        diagnosis.treated_as = _treated_as(seen)
    findings += [*recognised(seen), *_strays(folder, seen)]
    return diagnosis


def _attempt(findings: list[Finding], step: Callable[[], T]) -> T | None:
    """What a step gives, or None and what it said. Whatever a folder holds, there is one sentence about it."""
    try:
        return step()
    except (ValueError, OSError) as error:
        findings.append(Finding("wrong", " ".join(str(error).split())))
    except Exception as error:  # a file so strange that nobody thought of it
        findings.append(Finding("wrong", f"reading it failed with {type(error).__name__}: {str(error)[:200]}"))
    return None


def _own_tensors(folder: Path) -> Tensors:
    """The folder's own tensors by the names in its files; none where they cannot be listed."""
    reader = Reader()
    try:
        if reader.has_weights(folder):
            return reader.weights(folder)
        return {
            name: tensor for stem in (ADAPTER, PROJECTOR) for name, tensor in (reader.file(folder, stem) or {}).items()
        }
    except CheckpointError:
        return {}


def _what(seen: Seen) -> str:
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
    if "model_type" in config:
        return f"a model of type {config['model_type']!r}"
    return "a folder with a config.json" if config else "a folder without a configuration"


def _treated_as(seen: Seen) -> dict[str, str]:
    """How it is taken, row by row."""
    assert seen.contents is not None
    config = seen.contents.config
    return {
        "format": seen.contents.format,
        "variant": variant(config),
        "vision tower": _tower(seen),
        "template": config.template,
        "pictures": _pictures(config),
        "compat": config.tiling.compat if config.tiling else "no matter: one view a picture",
        "tokenizer": _tokenizer(seen),
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
    named = next((name for name, known in KNOWN_TOWERS.items() if _same(known, seen.contents.config.vision)), "")
    inside = seen.contents.format != "original" or seen.has_own_tower
    place = "inside" if inside else f"from {seen.parts.vision_tower}"
    return f"{place}, of the shape of {named}" if named else place


def _same(known: VisionConfig, vision: VisionConfig) -> bool:
    """Whether a tower is built as a published one, however LLaVA reads it; layers it never reads may be cut off."""
    reading = {"feature_layer", "feature_select", "num_layers"}
    is_as_long = known.num_used_layers <= vision.num_layers <= known.num_layers
    return is_as_long and known.model_dump(exclude=reading) == vision.model_dump(exclude=reading)


def _pictures(config: LlavaConfig) -> str:
    if config.tiling is None:
        return f"{config.resize_mode}, {config.vision.num_features} tokens each"
    return f"{config.resize_mode}, {len(config.tiling.pinpoints)} canvases, merge {config.tiling.merge}"


def _tokenizer(seen: Seen) -> str:
    folder = tokenizer_folder(seen.folder, seen.parts.base)
    name = next((name for name in (TOKENIZER_FILE, SENTENCEPIECE_FILE) if (folder / name).is_file()), None)
    if name is None:
        return "none"
    made = ", converted" if name == SENTENCEPIECE_FILE else ""
    return f"{name}{made}" if folder == seen.folder else f"{name} of {folder}{made}"


def _fit(contents: Contents) -> Iterator[Finding]:
    """Where the tensors are not the model's."""
    with torch.device("meta"):
        model = Llava(contents.config)
    for what, names in misfits(model, contents.tensors).items():
        yield Finding("wrong", f"{len(names)} tensors {what}", names=tuple(names))


def _vocabulary(config: LlavaConfig, num_words: int) -> Iterator[Finding]:
    if beyond := config.language.vocab_size - num_words:
        yield Finding("note", f"{beyond} rows of the vocabulary have no word, and no answer may hold them")


def _numbers(contents: Contents) -> Iterator[Finding]:
    types = Counter(tensor.dtype for tensor in contents.tensors.values())
    if len(types) > 1:
        listed = ", ".join(f"{number} {dtype}" for dtype, number in types.most_common())
        yield Finding("note", f"the weights are of several number formats: {listed}; one is made of them when loading")


def _dropped(seen: Seen) -> Iterator[Finding]:
    """What the folder holds and the model has no use for."""
    assert seen.contents is not None
    used = {tensor.name for tensor in seen.contents.tensors.values()}
    unused = tuple(name for name in seen.stored if name not in used and ".lora_" not in name)
    if unused and not seen.parts.base:
        yield Finding("note", f"{len(unused)} tensors that can never matter are left aside", names=unused)


def _weights(tensors: Tensors) -> Iterator[Finding]:
    """Every tensor, one after the other: numbers that are none, and matrices of nothing but zeros."""
    broken, empty = [], []
    for tensor in tensors.values():
        values = tensor.read()
        bad = int((~values.isfinite()).sum())
        if bad:
            broken.append(f"{tensor.name} ({bad:,} of {values.numel():,})")
        elif values.dim() > 1 and not values.any():
            empty.append(tensor.name)
    if broken:
        do = "get the files again, or the training that made them has diverged"
        yield Finding("wrong", f"{len(broken)} tensors hold infinite numbers or none at all", do, names=tuple(broken))
    if empty:
        yield Finding("unusual", f"{len(empty)} matrices are all zeros, as if never filled", names=tuple(empty))


def _hints(seen: Seen) -> Iterator[Finding]:
    """What a folder that is no checkpoint may be good for."""
    kind = seen.config.get("model_type")
    if kind in ("llama", "mistral", "qwen2") and not seen.is_original:
        yield Finding("note", "it is a language model alone", "give it as --base to what was made from it")
    if kind in ("clip", "clip_vision_model", "siglip", "siglip_vision_model"):
        yield Finding("note", "it is a vision tower", "give it as --vision-tower to a checkpoint without one")
    if seen.folder.is_dir() and (gguf := sorted(path.name for path in seen.folder.glob("*.gguf"))):
        yield Finding("note", "it holds files of llama.cpp, which are not read here", names=tuple(gguf))


def _damaged(folder: Path) -> Iterator[Finding]:
    """Every safetensors file that does not open, and why; the reader stops at the first."""
    for path in sorted(folder.glob(f"*{_SAFETENSORS}")) if folder.is_dir() else ():
        try:
            Reader().file(folder, path.name.removesuffix(_SAFETENSORS))
        except CheckpointError as error:
            is_pointer = path.stat().st_size < 1024 and path.read_bytes().startswith(_LFS_POINTER)
            do = "it is a Git LFS pointer: run git lfs pull" if is_pointer else "get this file again"
            yield Finding("wrong", str(error), do, names=(path.name,))


def _strays(folder: Path, seen: Seen) -> Iterator[Finding]:
    """Weight files that nobody opens, or that will not be opened here."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    pickles = tuple(path.name for path in files if path.suffix in PICKLES)
    tensors = tuple(path.name for path in files if path.suffix == _SAFETENSORS)
    if pickles and seen.contents is not None:
        yield Finding("note", "the pickles beside the safetensors are not opened", names=pickles)
    index = seen.beside("model.safetensors.index.json").get("weight_map")
    named = set(index.values()) if isinstance(index, dict) and all(map(_is_text, index.values())) else set()
    if named and (extra := tuple(sorted({*tensors} - named - {"model.safetensors"}))):
        yield Finding("unusual", "weight files that the index does not name are not read", names=extra)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
