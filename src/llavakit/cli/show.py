"""`llava show`: what a model is, without loading its weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from llavakit.cli.options import BaseOption, ModelArgument, VisionTowerOption

if TYPE_CHECKING:
    from llavakit.config import LlavaConfig

_SIZE_HELP = "Size of a picture in pixels, such as 640x480: how many tokens it becomes."


def show(
    model: ModelArgument,
    image_size: Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help=_SIZE_HELP)] = None,
    vision_tower: VisionTowerOption = None,
    base: BaseOption = None,
) -> None:
    """Show what a model is made of. Reads its configuration and headers, not its weights."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from llavakit.catalog import entry_of
    from llavakit.checkpoint.card import licence_of
    from llavakit.checkpoint.contents import Parts, read_contents
    from llavakit.checkpoint.describe import variant
    from llavakit.checkpoint.load import companions, locate
    from llavakit.model import Llava
    from llavakit.model.footprint import GROUPED, PRECISIONS, cache_bytes, weight_bytes

    folder = locate(model)
    contents = read_contents(folder, companions(model, Parts(vision_tower, base)))
    config = contents.config
    with torch.device("meta"):
        whole = Llava(config)
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in whole.named_children()}
    vision, language, projector = config.vision, config.language, config.projector
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    gqa = "" if language.num_kv_heads == language.num_heads else f" sharing {language.num_kv_heads} of keys and values"

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in (
        ("model", f"{folder} ({contents.format} format)"),
        ("built", variant(config)),
        ("parameters", f"{sum(weight.numel() for weight in whole.parameters()):,}"),
        (
            "  vision",
            f"{counts['vision']:,}: {vision.num_used_layers} layers, width {vision.hidden_size}, {vision.num_heads} "
            f"heads; {vision.image_size}x{vision.image_size} pixels in patches of {vision.patch_size}, "
            f"feature layer {vision.feature_layer} of {vision.num_layers}",
        ),
        ("  projector", f"{counts['projector']:,}: {projector.kind}"),
        (
            "  language",
            f"{counts['language']:,}: {language.num_layers} layers, width {language.hidden_size}, "
            f"{language.num_heads} heads{gqa}, vocabulary {language.vocab_size:,}",
        ),
        ("context", f"{language.max_positions:,} tokens"),
        ("a picture", _picture(config, image_size)),
        *([("compat", config.tiling.compat)] if config.tiling else []),
        ("template", config.template),
        ("stored as", ", ".join(sorted({tensor.dtype for tensor in contents.tensors.values()}))),
        ("size", _megabytes(size)),
        ("licence", licence_of(folder) or (entry.licence if (entry := entry_of(model)) else "") or "not stated"),
        ("memory", f"weights, and keys and values of {language.max_positions:,} tokens{GROUPED}"),
        *(
            (
                f"  {name}",
                f"{_megabytes(weight_bytes(whole, precision))} + "
                f"{_megabytes(cache_bytes(language, language.max_positions, precision))}",
            )
            for name, precision in PRECISIONS.items()
        ),
    ):
        table.add_row(name, value)
    Console(soft_wrap=True, highlight=False).print(table)


def _picture(config: LlavaConfig, image_size: str | None) -> str:
    """What a picture of that size becomes; unless it is given, one that fills the largest canvas."""
    from llavakit.anyres import num_image_tokens, num_views

    if image_size is None and config.resize_mode != "anyres":
        return f"{num_image_tokens(1, 1, config)} tokens, resize mode {config.resize_mode}"
    if image_size is None:
        width, height = max(config.tiling.pinpoints, key=lambda size: num_image_tokens(*size, config))
    else:
        width, height = _parse(image_size)
    views, tokens = num_views(width, height, config), num_image_tokens(width, height, config)
    tiles = f" from 1 + {views - 1} tiles" if config.resize_mode == "anyres" else ""
    return f"{tokens:,} tokens at {width}x{height}{tiles}, resize mode {config.resize_mode}"


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def _parse(image_size: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", image_size)
    if match is None:
        raise ValueError(f"--image-size is {image_size!r}; give width and height in pixels, such as 640x480")
    return int(match[1]), int(match[2])
