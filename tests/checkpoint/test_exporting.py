"""Law 5: export, read back, compare: nothing is lost on the way, and nothing else is overwritten."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.checkpoint import CheckpointError, exporting
from llavakit.checkpoint.contents import read_contents
from llavakit.checkpoint.export.source import Source
from llavakit.checkpoint.exporting import STAMP, export_checkpoint
from llavakit.checkpoint.save import save
from llavakit.checkpoint.shards import write_tensors
from llavakit.config import LlavaConfig
from llavakit.processing import TEMPLATES, Tokenizer

from .conftest import random_model


@st.composite
def configs(draw: st.DrawFn, target: str) -> LlavaConfig:
    """Any model that the target can hold, tiny."""
    hf, tiled = target == "hf", draw(st.booleans())
    layers, heads = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 4]))
    vision = {
        "image_size": draw(st.sampled_from([14, 28])), "patch_size": 7, "hidden_size": 4 * draw(st.integers(1, 3)),
        "intermediate_size": draw(st.integers(1, 9)), "num_layers": layers, "num_heads": draw(st.sampled_from([1, 2])),
        "activation": draw(st.sampled_from(["quick_gelu", "gelu"])), "layer_norm_eps": draw(st.floats(1e-7, 1e-2)),
        "feature_layer": draw(st.integers(-layers - 1, layers)),
        "feature_select": "patch" if tiled else draw(st.sampled_from(["patch", "full"])),
        "image_mean": draw(st.tuples(*[st.floats(0, 1)] * 3)), "image_std": draw(st.tuples(*[st.floats(0.1, 1)] * 3)),
    }  # fmt: skip
    rows = 264 + draw(st.integers(0, 3))
    language = {
        "vocab_size": rows, "hidden_size": 4 * draw(st.integers(1, 3)), "intermediate_size": draw(st.integers(1, 9)),
        "num_layers": draw(st.integers(1, 2)), "num_heads": 4, "num_kv_heads": heads, "head_dim": 2,
        "rms_norm_eps": draw(st.floats(1e-7, 1e-2)), "rope_theta": draw(st.floats(100, 1e6)),
        "max_positions": draw(st.integers(8, 9999)), "tie_embeddings": draw(st.booleans()),
        "qkv_bias": draw(st.booleans()),
    }  # fmt: skip
    tokens = {"bos": draw(st.sampled_from([None, 1])), "eos": 2, "pad": draw(st.sampled_from([0, 2]))}
    data: dict[str, Any] = {
        "vision": vision, "language": language, "tokens": tokens | {"image": draw(st.sampled_from([3, rows]))},
        "projector": {
            "kind": "mlp2x_gelu" if hf else draw(st.sampled_from(["mlp2x_gelu", "linear"])),
            "bias": not hf or draw(st.booleans()),
        },
        "resize_mode": draw(st.sampled_from(["square", "pad"])), "template": draw(st.sampled_from(list(TEMPLATES))),
    }  # fmt: skip
    if tiled:
        side = st.integers(1, 3).map(lambda count: count * vision["image_size"])
        merge = "spatial_unpad" if hf else draw(st.sampled_from(["spatial_unpad", "spatial", "flat"]))
        most = None if hf or merge != "spatial_unpad" else draw(st.sampled_from([None, 2]))
        data |= {
            "resize_mode": "anyres",
            "tiling": {
                "pinpoints": draw(st.lists(st.tuples(side, side), min_size=1, max_size=4)),
                "merge": merge, "max_tiles": most, "only_alone": most is not None,
                "compat": draw(st.sampled_from(["original", "hf"])),
            },
        }  # fmt: skip
    return LlavaConfig.parse(data)


@pytest.mark.parametrize("target", ["hf", "original"])
def test_what_is_exported_is_what_is_read_back(target: str, tokenizer: Tokenizer, monkeypatch: Any) -> None:
    @settings(max_examples=15, deadline=None)
    @given(configs(target), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]), st.integers(400, 10**6))
    def check(config: LlavaConfig, dtype: torch.dtype, max_bytes: int) -> None:
        with tempfile.TemporaryDirectory() as scratch, monkeypatch.context() as patched:
            for writer in ("hf", "original"):
                patched.setattr(f"llavakit.checkpoint.export.{writer}.write_tensors", sharded(max_bytes))
            native, out = Path(scratch) / "native", Path(scratch) / "out"
            save(random_model(config), tokenizer, native, dtype=dtype)
            export_checkpoint(native, out, to=target)
            before, after = read_contents(native), read_contents(out)
            rows = config.language.vocab_size
            assert after.config == (with_word(config, tokenizer) if target == "hf" else config)
            assert after.tensors.keys() == before.tensors.keys()
            for name, tensor in before.tensors.items():
                found = after.tensors[name].read()
                is_by_word = name in ("language.embed_tokens.weight", "language.lm_head.weight")
                assert torch.equal(found[:rows] if is_by_word else found, tensor.read()), name

    check()


def sharded(max_bytes: int) -> Any:
    return lambda tensors, folder, dtype: write_tensors(tensors, folder, dtype, max_bytes)


def with_word(config: LlavaConfig, tokenizer: Tokenizer) -> LlavaConfig:
    """transformers needs a word for a picture: behind those of the tokenizer, where the model has none."""
    image = config.tokens.image if config.tokens.image < tokenizer.size else 3
    return config.model_copy(update={"tokens": config.tokens.model_copy(update={"image": image})})


def test_an_earlier_export_is_replaced_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_checkpoint(folder, out, to="original")
    export_checkpoint(folder, out, to="hf")
    assert not (out / "vision_tower").exists() and (out / "chat_template.jinja").exists()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"would delete notes\.txt"):
        export_checkpoint(folder, out, to="hf")
    assert (out / "notes.txt").read_text() == "mine"


def test_other_folders_and_files_are_left_alone(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no earlier export"):
        export_checkpoint(folder, folder, to="hf")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file; an export is a folder"):
        export_checkpoint(folder, tmp_path / "file", to="hf")
    (tmp_path / "empty").mkdir()
    export_checkpoint(folder, tmp_path / "empty", to="hf")
    assert (tmp_path / "empty" / STAMP).is_file()


def test_a_failure_leaves_nothing_behind(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: Source, partial: Path) -> list[str]:
        (partial / "config.json").write_text("half")
        raise OSError("no space left on device")

    out = tmp_path / "out"
    export_checkpoint(folder, out, to="hf")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setitem(exporting.WRITERS, "hf", fails)
    with pytest.raises(CheckpointError, match="no space left on device.*what was there before is untouched"):
        export_checkpoint(folder, out, to="hf")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny"]


def test_an_export_can_be_exported(folder: Path, tmp_path: Path) -> None:
    export_checkpoint(folder, tmp_path / "one", to="original")
    export_checkpoint(tmp_path / "one", tmp_path / "two", to="hf")
    export_checkpoint(tmp_path / "two", tmp_path / "three", to="original")
    first, last = read_contents(folder), read_contents(tmp_path / "three")
    assert first.config == last.config
    assert all(torch.equal(tensor.read(), last.tensors[name].read()) for name, tensor in first.tensors.items())
