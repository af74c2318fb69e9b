"""`llava show` tells of a model what its tensors say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llavakit.checkpoint.load import load
from llavakit.checkpoint.save import save
from llavakit.config import TilingConfig
from llavakit.model import Llava
from llavakit.model.footprint import PRECISIONS, cache_bytes, weight_bytes


def rows(out: str) -> dict[str, str]:
    return {line[:12].strip(): line[12:].strip() for line in out.splitlines()}


def test_every_number_is_the_models_own(llava: Callable, model_folder: Path) -> None:
    run = llava("show", model_folder)
    shown = rows(run.out)
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
    assert shown["built"] == "as LLaVA-1.5: projector mlp2x_gelu, resize mode pad"
    assert shown["licence"] == "not stated"
    weights, cache = (
        weight_bytes(model, PRECISIONS["int8"]),
        cache_bytes(model.config.language, 256, PRECISIONS["int8"]),
    )
    assert shown["int8"] == f"{weights / 1e6:,.1f} MB + {cache / 1e6:,.1f} MB"
    assert shown["size"] == f"{(model_folder / 'model.safetensors').stat().st_size / 1e6:,.1f} MB"


def test_how_many_tokens_a_picture_of_some_size_becomes(
    llava: Callable, model_folder: Path, tiled_folder: Path
) -> None:
    assert "4 tokens at 640x480, resize mode pad" in llava("show", model_folder, "--image-size", "640x480").out
    shown = rows(llava("show", tiled_folder).out)
    assert shown["a picture"] == "24 tokens at 56x56 from 1 + 4 tiles, resize mode anyres"
    assert shown["compat"] == "original"
    assert shown["parameters"] == f"{sum(weight.numel() for weight in load(tiled_folder).model.parameters()):,}"
    assert "14 tokens at 99x33 from 1 + 2 tiles" in llava("show", tiled_folder, "--image-size", "99x33").out


@pytest.mark.parametrize("size", ["640", "0x5", "640X480", "-1x2", "1x"])
def test_a_size_that_is_none(size: str, llava: Callable, model_folder: Path) -> None:
    run = llava("show", model_folder, "--image-size", size)
    assert run.code == 1
    assert run.err == f"llava: --image-size is {size!r}; give width and height in pixels, such as 640x480\n"


@pytest.fixture
def tiled_folder(model_folder: Path, tmp_path: Path) -> Path:
    """The tiny model, as if it saw pictures in tiles."""
    loaded = load(model_folder)
    tiling = TilingConfig(pinpoints=[(28, 56), (56, 28), (56, 56)])
    tiles = loaded.config.model_copy(update={"resize_mode": "anyres", "tiling": tiling})
    save(Llava(tiles), loaded.tokenizer, tmp_path / "tiled")
    return tmp_path / "tiled"


def test_no_model(llava: Callable, tmp_path: Path) -> None:
    run = llava("show", tmp_path)
    assert run.code == 1 and "config.json" in run.err and run.err.count("\n") == 1


def test_the_licence(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    assert rows(llava("show", "pocket").out)["licence"] == "Apache-2.0"
    folder = tmp_path / "carded"
    loaded = load(model_folder)
    save(loaded.model, loaded.tokenizer, folder, card="---\nlicense: mit\n---\n# carded\n")
    assert rows(llava("show", folder).out)["licence"] == "mit"
