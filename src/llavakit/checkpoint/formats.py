"""Which format a folder is in, told from its content and never from its name; and its configuration as ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.kinds import check_kinds
from llavakit.checkpoint.translate import is_llava_hf, translate
from llavakit.config import ConfigError, LlavaConfig

Format = Literal["llavakit", "llava-hf", "original"]

NATIVE_FORMAT: Format = "llavakit"
NATIVE_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_SETTINGS_FILE = "tokenizer_config.json"

# Files beside config.json in which a llava-hf folder may say the rest; later transformers nest the image settings.
GENERATION_FILE = "generation_config.json"
_MAX_JSON_BYTES = 4 << 20  # the index of the largest published model has 0.2 MB
_IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")


def read_config(folder: str | Path) -> tuple[LlavaConfig, Format]:
    """The configuration of a native or llava-hf folder, which says all by itself, and its format; reads no weights.

    Raises `CheckpointError` for a folder that is no checkpoint or of a kind that is not read yet.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}")
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it has no {CONFIG_FILE}")
    data = read_settings(folder / CONFIG_FILE)
    try:
        if data.get("format") == NATIVE_FORMAT:
            return _native(data), NATIVE_FORMAT
        if is_llava_hf(data):
            return _llava_hf(folder, data), "llava-hf"
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from error
    raise CheckpointError(f"{folder} holds {_describe(data)}, which llavakit does not read")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that must hold one object; raises `CheckpointError` naming the file."""
    try:
        size = path.stat().st_size
        text = path.read_bytes() if size <= _MAX_JSON_BYTES else b""
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if size > _MAX_JSON_BYTES:
        raise CheckpointError(f"{path} has {size:,} bytes, and at most {_MAX_JSON_BYTES:,} of such a file are read")
    try:
        data = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable as JSON ({error})") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a JSON {type(data).__name__} where an object is needed")
    return data


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON file of settings, foreign or ours, whose values are of the kinds that their keys must have."""
    data = read_json(path)
    try:
        check_kinds(data)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return data


def read_optional(path: Path) -> dict[str, Any]:
    """What `read_settings` gives, or nothing where there is no such file."""
    return read_settings(path) if path.is_file() else {}


def _native(data: dict[str, Any]) -> LlavaConfig:
    version = data.get("version")
    if version != NATIVE_VERSION:
        raise CheckpointError(
            f"this checkpoint has version {version!r} of the native format, and this llavakit reads "
            f"{NATIVE_VERSION}: use the llavakit that wrote it, or a newer one"
        )
    return LlavaConfig.parse({key: value for key, value in data.items() if key not in ("format", "version")})


def _llava_hf(folder: Path, data: dict[str, Any]) -> LlavaConfig:
    return translate(
        data,
        generation=read_optional(folder / GENERATION_FILE),
        image=_image(folder),
        tokenizer=read_optional(folder / TOKENIZER_SETTINGS_FILE),
    )


def _image(folder: Path) -> dict[str, Any]:
    """How the pictures are prepared: the first file that says so; empty if none does."""
    for name in _IMAGE_FILES:
        data = read_optional(folder / name)
        settings = data.get("image_processor", data)
        if "image_processor_type" in settings or "image_mean" in settings:
            return settings
    return {}


def _describe(data: dict[str, Any]) -> str:
    if "model_type" in data:
        return f"a model of type {data['model_type']!r}"
    return f"a {CONFIG_FILE} without format or model_type"
