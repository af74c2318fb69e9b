"""`llava show` tells of a model what its tensors say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llavakit.checkpoint.load import load


def test_every_number_is_the_models_own(llava: Callable, model_folder: Path) -> None:
    run = llava("show", model_folder)
    shown = {line[:12].strip(): line[12:].strip() for line in run.out.splitlines()}
    model = load(model_folder).model
    assert run.code == 0
    assert shown["parameters"] == f"{sum(weight.numel() for weight in model.parameters()):,}"
    for name in ("vision", "projector", "language"):
        part = getattr(model, name)
        assert shown[name].startswith(f"{sum(weight.numel() for weight in part.parameters()):,}: ")
    assert shown["context"] == "256 tokens"
    assert shown["a picture"] == "4 tokens, resize mode pad"
    assert shown["template"] == "vicuna_v1"
    assert shown["stored as"] == "F16"
    assert shown["size"] == f"{(model_folder / 'model.safetensors').stat().st_size / 1e6:,.1f} MB"


def test_no_model(llava: Callable, tmp_path: Path) -> None:
    run = llava("show", tmp_path)
    assert run.code == 1 and "config.json" in run.err and run.err.count("\n") == 1
