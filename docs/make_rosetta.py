"""Writes docs/rosetta.md: our names, the original's and Hugging Face's, side by side (`make docs`).

Names of weights are read from the key tables. Names in configurations are found by changing each of our fields and
looking at what changes in the files that are written for others. Only the terms are listed here.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from llavakit.checkpoint.export import hf_files, original
from llavakit.checkpoint.export.chat_template import Words, chat_template
from llavakit.checkpoint.remarks import OUR_KEY
from llavakit.checkpoint.tables import LLAVA_HF, LLAVA_HF_MEMORY_5, ORIGINAL, Table
from llavakit.config import LlavaConfig, TilingConfig
from llavakit.processing import find_template

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "rosetta.md"
NONE = "-"

TERMS = (
    ("vision tower", "mm_vision_tower", "vision tower, vision model, image encoder"),
    ("projector", "mm_projector", "multi_modal_projector"),
    ("language model", "LLM, base model", "language_model, text model"),
    ("placeholder, one for each feature", "IMAGE_TOKEN_INDEX, -200, one for each picture", "image_token_index"),
    ("feature layer", "mm_vision_select_layer", "vision_feature_layer"),
    (
        "feature select: patch, full",
        "mm_vision_select_feature: patch, cls_patch",
        "vision_feature_select_strategy: default, full",
    ),
    ("resize mode: square, pad, anyres", "image_aspect_ratio", "do_center_crop, do_pad, LlavaNextImageProcessor"),
    ("tile, base tile", "patch, image_original_resize", "patch, base image feature"),
    ("canvas", "best_resolution", "best_resolution"),
    ("pinpoints, (width, height)", "image_grid_pinpoints, (width, height)", "image_grid_pinpoints, (height, width)"),
    ("merge mode", "mm_patch_merge_type", "none: as spatial_unpad"),
    ("newline", "image_newline", "image_newline"),
    ("template", "conv_mode, conversation", "chat template"),
    ("target", "label that is not -100", "label that is not -100"),
    ("stage: align, instruct", "pretrain, finetune", NONE),
    ("adapter and what goes with it", "LoRA folder, non_lora_trainables", "PEFT adapter, modules_to_save"),
)  # fmt: skip

# Fields that have another value only together with others.
_SIGLIP = {"vision.class_token": False, "vision.pre_norm": False, "vision.patch_bias": True}
_POOLED = {"tiling.max_tiles": 4, "tiling.only_alone": True}
TOGETHER: dict[str, dict[str, Any]] = dict.fromkeys(_SIGLIP, _SIGLIP) | dict.fromkeys(_POOLED, _POOLED)

Files = Mapping[str, Mapping[str, Any]]


def rosetta() -> str:
    """The whole page."""
    return "\n".join(
        [
            "# Rosetta",
            "",
            "Our names, those of the original LLaVA code, and those of Hugging Face's transformers. Printed by "
            "`docs/make_rosetta.py` from the tables and writers of `checkpoint`.",
            "",
            "## Terms",
            "",
            *_table(("we say", "the original", "Hugging Face"), TERMS),
            "",
            "## Weights",
            "",
            "`*` is the rest of the name. Files on the hub keep the names that the first version of transformers had; "
            "version 5 has others in memory. A linear projector is one matrix without a number in its name, and "
            "transformers has none.",
            "",
            *_table(("ours", "the original", "files on the hub", "transformers 5 in memory"), _weights()),
            "",
            "These never matter to what is computed, and are known and left out when they are read:",
            "",
            *_table(("the original", "files on the hub"), _unused()),
            "",
            "## Configuration",
            "",
            "In config.json unless another file is named; keys of Hugging Face's `text_config` are the original's top "
            f"level. `{OUR_KEY}` is our own key in their files, for what they have no key for; others pass over it. "
            f"`{NONE}` says that a format knows one value only: a model with another is not written in it.",
            "",
            *_table(("ours", "the original", "Hugging Face"), _fields()),
            "",
        ]
    )


def _weights() -> Iterator[tuple[str, ...]]:
    kept = [row.ours for row in LLAVA_HF if row.ours]
    for ours in kept:
        yield tuple(_code([ours]) if table is None else _code(_theirs(ours, table)) for table in (None, *_TABLES))


_TABLES: tuple[Table, ...] = (ORIGINAL, LLAVA_HF, LLAVA_HF_MEMORY_5)


def _theirs(ours: str, table: Table) -> list[str]:
    return [row.theirs for row in table if row.ours == ours]


def _unused() -> Iterator[tuple[str, ...]]:
    theirs = [[row.theirs for row in table if row.ours is None] for table in (ORIGINAL, LLAVA_HF)]
    for row in range(max(map(len, theirs))):
        yield tuple(_code(names[row : row + 1]) for names in theirs)


def _fields() -> Iterator[tuple[str, str, str]]:
    plain = LlavaConfig()
    tiled = LlavaConfig(resize_mode="anyres", tiling=TilingConfig(pinpoints=((336, 672), (672, 336), (672, 672))))
    for name in _names(tiled):
        before = tiled if name.startswith("tiling.") else plain
        theirs = [_changed(before, name, write) for write in (_for_original, _for_hf)]
        yield _code([name]), *map(_by_file, theirs)


def _names(config: BaseModel, prefix: str = "") -> Iterator[str]:
    for name, value in config:
        if isinstance(value, BaseModel):
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _changed(before: LlavaConfig, name: str, write: Callable[[LlavaConfig], Files]) -> list[str]:
    """The keys that another value of one of our fields changes; empty where no other value can be written."""
    data = before.model_dump()
    old = dict(_dotted(data)).get(name)
    for changes in [TOGETHER[name]] if name in TOGETHER else [{name: value} for value in _others(old)]:
        try:
            after = write(LlavaConfig.model_validate(_with(data, changes)))
        except ValueError:
            continue
        one, other = _flat(write(before)), _flat(after)
        found = [key for key in one | other if one.get(key) != other.get(key)]
        # What is said under our own key follows from other fields, if there is a key of theirs as well.
        if named := [key for key in found if not key.startswith(OUR_KEY)] or found:
            return named
    return []


def _with(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data with other values at some dotted names."""
    changed = copy.deepcopy(dict(data))
    for name, value in changes.items():
        *parents, field = name.split(".")
        place = changed
        for parent in parents:
            place = place[parent]
        place[field] = value
    return changed


def _others(value: Any) -> Iterator[Any]:
    """Other values that a field could have; most of them it cannot."""
    match value:
        case bool():
            yield not value
        case int():
            yield from (value * 2, value // 2, value + 1, value - 1)
        case float():
            yield value * 2
        case ():
            yield (4,)
        case tuple():
            yield value[::-1]
        case None:
            yield from (4, {"kind": "linear", "factor": 2.0})
        case str():
            yield from ("square", "pad", "flat", "spatial", "patch", "full", "quick_gelu", "gelu", "linear")
            yield from ("original", "hf", "llava_v1")


def _for_hf(config: LlavaConfig) -> Files:
    written = chat_template(find_template(config.template), Words("<s>", "</s>", "<image>"))
    files = hf_files.json_files(config, image_token="<image>", ends=list(config.tokens.ends))
    return files | {"chat_template.jinja": {"messages": written}}


def _for_original(config: LlavaConfig) -> Files:
    tower = {f"the tower's {name}": data for name, data in original.tower_files(config.vision).items()}
    return original.json_files(config, "the tower's folder") | tower


def _flat(files: Files) -> dict[str, Any]:
    """Values by their dotted keys, with the name of the file before them unless it is config.json."""
    flat = {}
    for file, data in files.items():
        for key, value in _dotted(data):
            flat[key if file == "config.json" else f"{file}: {key}"] = value
    return flat


def _dotted(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _table(head: tuple[str, ...], rows: Any) -> Iterator[str]:
    for cells in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cells)} |"


def _by_file(keys: list[str]) -> str:
    """Keys as code, the name of a file once before all of its keys."""
    files: dict[str, list[str]] = {}
    for key in keys:
        file, _, name = key.rpartition(": ")
        files.setdefault(file, []).append(name)
    return "; ".join(f"{file}: {_code(names)}" if file else _code(names) for file, names in files.items()) or NONE


def _code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or NONE


if __name__ == "__main__":
    PAGE.write_text(rosetta(), encoding="utf-8")
    print(PAGE.relative_to(ROOT), file=sys.stderr)
