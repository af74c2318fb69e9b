"""`llava show` tells of a model what its tensors say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llavakit.checkpoint.load import load
from llavakit.checkpoint.save import save
from llavakit.config import TilingConfig
from llavakit.kernels import native
from llavakit.model import Llava
from llavakit.model.footprint import cache_bytes, weight_bytes
from llavakit.quantize.apply import bytes_in, quantize_model
from llavakit.quantize.schemes import SCHEMES


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
    weights, cache = weight_bytes(model, 32), cache_bytes(model.config.language, 256, 32)
    assert shown["float32"] == f"{weights / 1e6:,.1f} MB + {cache / 1e6:,.1f} MB"
    weights, cache = bytes_in(model, SCHEMES["int8"]), cache_bytes(model.config.language, 256)
    assert shown["int8"] == f"{weights / 1e6:,.1f} MB + {cache / 1e6:,.1f} MB"
    cache = cache_bytes(model.config.language, 256, 8)
    assert shown["kv int8"] == f"{cache / 1e6:,.1f} MB of keys and values, with --kv-cache int8"
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


@pytest.mark.parametrize("size", ["65536x1", "1x100000", "99999999999999999999x1"])
def test_a_size_no_picture_can_have(size: str, llava: Callable, model_folder: Path) -> None:
    run = llava("show", model_folder, "--image-size", size)
    assert run.code == 1
    assert run.err == f"llava: --image-size is {size!r}; a side of a picture may have at most 65,535 pixels\n"


def test_a_fact_is_one_line_and_a_path_whole(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.symlink_to(model_folder)
    lines = llava("show", folder).out.splitlines()
    assert lines[0] == f"model       {folder} (llavakit format)"
    assert len(lines) == 21 and all(line == line.rstrip() for line in lines)


def test_json(llava: Callable, model_folder: Path, tiled_folder: Path) -> None:
    run = llava("show", model_folder, "--json")
    told, model = json.loads(run.out), load(model_folder).model
    assert run.code == 0 and told["folder"] == str(model_folder) and told["format"] == "llavakit"
    assert told["parameters"]["all"] == sum(weight.numel() for weight in model.parameters())
    assert told["parameters"]["vision"] == sum(weight.numel() for weight in model.vision.parameters())
    assert told["picture"] == {"width": None, "height": None, "views": 1, "tokens": 4, "resize_mode": "pad"}
    assert told["licence"] is told["compat"] is None and told["stored_as"] == ["F16"]
    assert told["memory"]["int4-g32"]["weights"] == bytes_in(model, SCHEMES["int4-g32"])
    assert told["scheme"] is None
    assert type(model.config).parse(told["config"]) == model.config
    tiled = json.loads(llava("show", tiled_folder, "--json", "--image-size", "99x33").out)
    assert tiled["picture"] == {"width": 99, "height": 33, "views": 3, "tokens": 14, "resize_mode": "anyres"}


def test_a_quantised_model(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    loaded = load(model_folder)
    save(quantize_model(loaded.model, SCHEMES["int4-g128"]), loaded.tokenizer, tmp_path / "small")
    shown = rows(llava("show", tmp_path / "small").out)
    assert shown["scheme"].startswith("int4-g128: language model int4 in groups of 128, 4.125 bits; head and")
    assert shown["parameters"] == rows(llava("show", model_folder).out)["parameters"]
    assert shown["stored as"] == "F32, U8"


def test_a_tokenizer_that_cannot_be_used_is_told(llava: Callable, model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "broken"))
    (folder / "tokenizer.json").write_text("{}")
    run = llava("show", folder)
    assert run.code == 1 and rows(run.out)["template"] == "vicuna_v1"
    assert "tokenizer.json cannot be used" in run.err and run.err.count("\n") == 1


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


@pytest.mark.skipif(native is None, reason="the native kernels are not built")
def test_an_instruction_set_that_there_is_not(llava: Callable, model_folder: Path) -> None:
    """In a process of its own, for it is chosen once."""
    environment = {**os.environ, "LLAVAKIT_ISA": "nonsense"}
    command = [sys.executable, "-m", "llavakit", "show", str(model_folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "LLAVAKIT_ISA is 'nonsense'" in done.stderr and "choose one of: " in done.stderr
