"""`llava show`: what a model is, without loading its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llavakit.cli.options import BaseOption, ModelArgument, VisionTowerOption

if TYPE_CHECKING:
    from pathlib import Path

    from llavakit.checkpoint.contents import Contents
    from llavakit.config import LlavaConfig
    from llavakit.model import Llava

_SIZE_HELP = "Size of a picture in pixels, such as 640x480: how many tokens it becomes."


def show(
    model: ModelArgument,
    image_size: Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help=_SIZE_HELP)] = None,
    vision_tower: VisionTowerOption = None,
    base: BaseOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the text.")] = False,
) -> None:
    """Show what a model is made of. Reads its configuration and headers, not its weights."""
    from llavakit.catalog import entry_of
    from llavakit.checkpoint.contents import Parts, read_contents
    from llavakit.checkpoint.load import companions, locate, tokenizer_of

    folder, parts = locate(model), companions(model, Parts(vision_tower, base))
    contents = read_contents(folder, parts)
    entry = entry_of(model)
    facts = _facts(folder, contents, image_size, known_licence=entry.licence if entry else "")
    print(json.dumps(facts, ensure_ascii=False) if as_json else "\n".join(_lines(facts, contents.config)))
    tokenizer_of(folder, parts, contents.config)  # what it is made of is shown, and that nobody can talk to it is told


def _facts(folder: Path, contents: Contents, image_size: str | None, *, known_licence: str) -> dict[str, Any]:
    """What --json prints, and the text stands on; sizes in bytes."""
    from llavakit import kernels
    from llavakit.checkpoint.card import licence_of
    from llavakit.checkpoint.describe import variant
    from llavakit.model.empty import empty
    from llavakit.model.footprint import cache_bytes

    config = contents.config
    whole = empty(config)
    parameters = {name: sum(weight.numel() for weight in part.parameters()) for name, part in whole.named_children()}
    return {
        "folder": str(folder),
        "format": contents.format,
        "built": variant(config),
        "parameters": {"all": sum(weight.numel() for weight in whole.parameters()), **parameters},
        "context": config.language.max_positions,
        "picture": _picture(config, image_size),
        "compat": config.tiling.compat if config.tiling else None,
        "template": config.template,
        "stored_as": sorted({tensor.dtype for tensor in contents.tensors.values()}),
        "scheme": contents.scheme,
        "size": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "licence": licence_of(folder) or known_licence or None,
        "memory": _memory(whole),
        "int8_cache": cache_bytes(config.language, config.language.max_positions, 8),
        "kernels": {"instruction_set": kernels.instruction_set(), "threads": kernels.num_threads()},
        "config": config.model_dump(mode="json"),
    }


def _memory(model: Llava) -> dict[str, dict[str, int]]:
    """By number format and by scheme, bytes of the weights, and of keys and values of a full context."""
    from llavakit.model.footprint import BITS, cache_bytes, weight_bytes
    from llavakit.quantize.apply import bytes_in
    from llavakit.quantize.schemes import SCHEMES

    language, context = model.config.language, model.config.language.max_positions
    floats = {
        name: {"weights": weight_bytes(model, bits), "cache": cache_bytes(language, context, bits)}
        for name, bits in BITS.items()
    }
    return floats | {
        name: {"weights": bytes_in(model, scheme), "cache": cache_bytes(language, context)}
        for name, scheme in SCHEMES.items()
    }


def _lines(facts: dict[str, Any], config: LlavaConfig) -> Iterator[str]:
    """One line a fact, however long."""
    from llavakit.quantize.schemes import describe, find_scheme

    scheme = facts["scheme"]
    parameters, vision, language = facts["parameters"], config.vision, config.language
    gqa = "" if language.num_kv_heads == language.num_heads else f" sharing {language.num_kv_heads} of keys and values"
    for name, value in (
        ("model", f"{facts['folder']} ({facts['format']} format)"),
        ("built", facts["built"]),
        ("parameters", f"{parameters['all']:,}"),
        (
            "  vision",
            f"{parameters['vision']:,}: {vision.num_used_layers} layers, width {vision.hidden_size}, "
            f"{vision.num_heads} heads; {vision.image_size}x{vision.image_size} pixels in patches of "
            f"{vision.patch_size}, feature layer {vision.feature_layer} of {vision.num_layers}",
        ),
        ("  projector", f"{parameters['projector']:,}: {config.projector.kind}"),
        (
            "  language",
            f"{parameters['language']:,}: {language.num_layers} layers, width {language.hidden_size}, "
            f"{language.num_heads} heads{gqa}, vocabulary {language.vocab_size:,}",
        ),
        ("context", f"{facts['context']:,} tokens"),
        ("a picture", _told(facts["picture"])),
        *([("compat", facts["compat"])] if facts["compat"] else []),
        ("template", facts["template"]),
        ("stored as", ", ".join(facts["stored_as"])),
        *([("scheme", f"{scheme}: {describe(find_scheme(scheme))}")] if scheme else []),
        ("size", _megabytes(facts["size"])),
        ("licence", facts["licence"] or "not stated"),
        ("memory", f"weights, and keys and values of {facts['context']:,} tokens"),
        *(
            (f"  {name}", f"{_megabytes(memory['weights'])} + {_megabytes(memory['cache'])}")
            for name, memory in facts["memory"].items()
        ),
        ("  kv int8", f"{_megabytes(facts['int8_cache'])} of keys and values, with --kv-cache int8"),
        ("kernels", "{instruction_set}, threads: {threads}".format(**facts["kernels"])),
    ):
        yield f"{name:<12}{value}"


def _picture(config: LlavaConfig, image_size: str | None) -> dict[str, Any]:
    """What a picture of that size becomes; unless it is given, one that fills the largest canvas.

    Without tiles every picture becomes the same, and has no size here unless one was given.
    """
    from llavakit.anyres import num_image_tokens, num_views

    if image_size is not None:
        width, height = _parse(image_size)
    elif config.resize_mode == "anyres":
        width, height = max(config.tiling.pinpoints, key=lambda size: num_image_tokens(*size, config))
    else:
        width = height = None
    size = (width or 1, height or 1)
    return {
        "width": width,
        "height": height,
        "views": num_views(*size, config),
        "tokens": num_image_tokens(*size, config),
        "resize_mode": config.resize_mode,
    }


def _told(picture: dict[str, Any]) -> str:
    size = f" at {picture['width']}x{picture['height']}" if picture["width"] else ""
    tiles = f" from 1 + {picture['views'] - 1} tiles" if picture["resize_mode"] == "anyres" else ""
    return f"{picture['tokens']:,} tokens{size}{tiles}, resize mode {picture['resize_mode']}"


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def _parse(image_size: str) -> tuple[int, int]:
    from llavakit.processing.image import MAX_SIDE

    match = re.fullmatch(r"([1-9]\d{0,99})x([1-9]\d{0,99})", image_size)
    if match is None:
        raise ValueError(f"--image-size is {image_size!r}; give width and height in pixels, such as 640x480")
    width, height = int(match[1]), int(match[2])
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"--image-size is {image_size!r}; a side of a picture may have at most {MAX_SIDE:,} pixels")
    return width, height
