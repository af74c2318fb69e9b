"""`llava show`: what a model is, without loading its weights."""

from __future__ import annotations

from llavakit.cli.options import ModelArgument


def show(model: ModelArgument) -> None:
    """Show what a model is made of. Reads its configuration and headers, not its weights."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from llavakit.checkpoint.formats import read_config
    from llavakit.checkpoint.load import locate
    from llavakit.checkpoint.reader import stored_tensors
    from llavakit.model import Llava

    folder = locate(model)
    config, file_format = read_config(folder)
    with torch.device("meta"):
        parts = {name: part for name, part in Llava(config).named_children()}
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}
    vision, language, projector = config.vision, config.language, config.projector
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    gqa = "" if language.num_kv_heads == language.num_heads else f" sharing {language.num_kv_heads} of keys and values"

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in (
        ("model", f"{folder} ({file_format} format)"),
        ("parameters", f"{sum(counts.values()):,}"),
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
        ("a picture", f"{vision.num_features} tokens, resize mode {config.resize_mode}"),
        ("template", config.template),
        ("stored as", ", ".join(sorted({tensor.dtype for tensor in stored_tensors(folder).values()}))),
        ("size", f"{size / 1e6:,.1f} MB"),
    ):
        table.add_row(name, value)
    Console(soft_wrap=True, highlight=False).print(table)
