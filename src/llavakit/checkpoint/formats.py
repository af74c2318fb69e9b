"""Which format a folder is in, told from its content and never from its name; and its configuration as ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.kinds import check_kinds
from llavakit.checkpoint.regular import check_regular, is_there
from llavakit.checkpoint.sections import LANGUAGES
from llavakit.checkpoint.translate import is_llava_hf, translate
from llavakit.checkpoint.translate_original import is_original
from llavakit.config import ConfigError, LlavaConfig, shown
from llavakit.quantize.schemes import find_scheme

Format = Literal["llavakit", "llava-hf", "original"]

NATIVE_FORMAT: Format = "llavakit"
NATIVE_VERSION = 1
QUANTIZATION = "quantization"  # the key under which a native folder says by which scheme it was made small
_OURS = ("format", "version", QUANTIZATION)
FOR_LLAMA_CPP = "an export for llama.cpp"  # what a folder of GGUF files is called
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_SETTINGS_FILE = "tokenizer_config.json"

# Files beside config.json in which a llava-hf folder may say the rest; later transformers nest the image settings.
GENERATION_FILE = "generation_config.json"
_MAX_JSON_BYTES = 4 << 20  # the index of the largest published model has 0.2 MB
IMAGE_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"
_IMAGE_FILES = (IMAGE_FILE, PROCESSOR_FILE)
# Where a folder may have a chat template of its own: first for the whole model, then for its language model alone.
CHAT_TEMPLATE_FILE = "chat_template.jinja"
_CHAT_TEMPLATE_FILES = (CHAT_TEMPLATE_FILE, "chat_template.json")
_MAX_CHAT_TEMPLATE_BYTES = 2**20  # published ones stay below 20 kB


def read_config(folder: str | Path) -> tuple[LlavaConfig, Format]:
    """The configuration of a native or llava-hf folder, which says all by itself, and its format; reads no weights.

    Raises `CheckpointError` for a folder that is no checkpoint or of a kind that is not read yet.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}")
    if not is_there(folder / CONFIG_FILE):
        if any(folder.glob("*.gguf")):
            raise CheckpointError(f"{folder} is {FOR_LLAMA_CPP}, which is not read here: give the model it was made of")
        raise CheckpointError(f"{folder} is no checkpoint: it has no {CONFIG_FILE}")
    data = read_settings(folder / CONFIG_FILE)
    try:
        if data.get("format") == NATIVE_FORMAT:
            return _native(data), NATIVE_FORMAT
        if is_llava_hf(data):
            return _llava_hf(folder, data), "llava-hf"
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from error
    if part := part_of_a_model(data):
        name, option = part
        raise CheckpointError(f"{folder} is {name}, no LLaVA: give it as {option} to a checkpoint that needs one")
    raise CheckpointError(f"{folder} holds {_describe(data)}, which llavakit does not read")


def part_of_a_model(data: dict[str, Any]) -> tuple[str, str] | None:
    """Of what is no model by itself but part of one: what to call it, and the option that takes it."""
    kind = data.get("model_type")
    if kind in [*LANGUAGES] and not is_original(data):
        return f"a language model alone (model_type {kind!r})", "--base"
    if kind in ("clip", "clip_vision_model", "siglip", "siglip_vision_model"):
        return f"a vision tower (model_type {kind!r})", "--vision-tower"
    return None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that must hold one object; raises `CheckpointError` naming the file."""
    check_regular(path, _MAX_JSON_BYTES)
    try:
        data = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
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
    return read_settings(path) if is_there(path) else {}


def _native(data: dict[str, Any]) -> LlavaConfig:
    version = data.get("version")
    if version != NATIVE_VERSION:
        raise CheckpointError(
            f"this checkpoint has version {version!r} of the native format, and this llavakit reads "
            f"{NATIVE_VERSION}: use the llavakit that wrote it, or a newer one"
        )
    return LlavaConfig.parse({key: value for key, value in data.items() if key not in _OURS})


def read_scheme(data: dict[str, Any]) -> str | None:
    """By which scheme a native folder is quantised, from its configuration; raises `ConfigError` for an unknown one."""
    entry = data.get(QUANTIZATION)
    if entry is None:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("scheme"), str):
        raise ConfigError(f"{QUANTIZATION} is {shown(entry)}: it has to hold the name of a scheme")
    try:
        find_scheme(entry["scheme"])
    except ValueError as error:
        raise ConfigError(f"{QUANTIZATION}: {error}") from None
    return entry["scheme"]


def _llava_hf(folder: Path, data: dict[str, Any]) -> LlavaConfig:
    return translate(
        data,
        generation=read_optional(folder / GENERATION_FILE),
        image=_image(folder),
        tokenizer=read_optional(folder / TOKENIZER_SETTINGS_FILE),
        chat_template=_chat_template(folder, _CHAT_TEMPLATE_FILES) or "",
    )


def read_chat_template(folder: str | Path) -> str:
    """The Jinja chat template that came with a foreign folder; raises `CheckpointError` if there is none.

    A native folder has none, whatever lies in it: its template is in its configuration.
    """
    folder = Path(folder)
    native = read_optional(folder / CONFIG_FILE).get("format") == NATIVE_FORMAT
    found = None if native else _chat_template(folder, (*_CHAT_TEMPLATE_FILES, TOKENIZER_SETTINGS_FILE))
    if found is None:
        why = "a native folder names its template instead" if native else f"{CHAT_TEMPLATE_FILE} would hold it"
        raise CheckpointError(f"{folder} has no chat template of its own ({why}): leave out --template jinja")
    return found


def _chat_template(folder: Path, names: tuple[str, ...]) -> str | None:
    """What the first of the files holds that has a chat template."""
    for path in (folder / name for name in names if is_there(folder / name)):
        if path.suffix == ".jinja":
            return _text(path)
        given = read_json(path).get("chat_template")
        if isinstance(given, list):  # several by name, of which one is for conversations
            named = [item for item in given if isinstance(item, dict) and item.get("name") == "default"]
            given = named[0].get("template") if named else None
        if isinstance(given, str):
            return given
    return None


def _text(path: Path) -> str:
    check_regular(path, _MAX_CHAT_TEMPLATE_BYTES)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not readable as text ({error})") from error


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
