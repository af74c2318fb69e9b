"""Merging a LoRA adapter says truly what it did, and takes nothing else for an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llavakit.checkpoint import CheckpointError, merging
from llavakit.checkpoint.contents import Parts
from llavakit.checkpoint.exporting import export_checkpoint
from llavakit.checkpoint.load import load
from llavakit.checkpoint.merging import Merged, merge_adapter

MATRIX = "language_model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def base(folder: Path, tmp_path: Path) -> Path:
    """The tiny model as llava-hf publishes them."""
    export_checkpoint(folder, tmp_path / "hf", to="hf")
    return tmp_path / "hf"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A PEFT adapter of rank 2 for one matrix of it; alpha / r is 3."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    write(folder, **{f"{MATRIX}.lora_A.weight": (2, 8), f"{MATRIX}.lora_B.weight": (8, 2)})
    return folder


def write(folder: Path, **shapes: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    tensors = {f"base_model.model.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, folder / "adapter_model.safetensors")


def test_the_sum_is_stored_and_compared(base: Path, adapter: Path, tmp_path: Path) -> None:
    merged = merge_adapter(adapter, tmp_path / "merged", parts=Parts(base=base))
    a, b = load_file(adapter / "adapter_model.safetensors").values()
    a, b = (a, b) if len(a) == 2 else (b, a)
    before, after = (
        load(folder).model.language.layers[0].self_attn.q_proj.weight for folder in (base, tmp_path / "merged")
    )
    torch.testing.assert_close(after, before + 3 * b @ a)
    assert merged.num_weights == 1
    assert merged.effect > 1e-2 and merged.error < 1e-3 * merged.effect


def test_rounding_shows_as_an_error(base: Path, adapter: Path, tmp_path: Path) -> None:
    exact = merge_adapter(adapter, tmp_path / "exact", parts=Parts(base=base))
    rounded = merge_adapter(adapter, tmp_path / "rounded", parts=Parts(base=base), dtype=torch.bfloat16)
    assert rounded.effect == exact.effect
    assert rounded.error > 10 * exact.error


def test_a_large_model_is_not_run(base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MAX_COMPARED", 1)
    assert merge_adapter(adapter, tmp_path / "merged", parts=Parts(base=base)) == Merged(num_weights=1)


def test_what_is_no_adapter_is_not_merged(base: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no LoRA adapter, it has no adapter_config.json: `llava import`"):
        merge_adapter(folder, tmp_path / "merged", parts=Parts(base=base))


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"language_model.model.layers.9.self_attn.q_proj.lora_A.weight": (2, 8),
          "language_model.model.layers.9.self_attn.q_proj.lora_B.weight": (8, 2)}, "changes .*layers.9.*does not have"),
        ({f"{MATRIX}.lora_A.weight": (2, 8)}, "has only one of the two matrices"),
        ({f"{MATRIX}.lora_A.weight": (2, 8), f"{MATRIX}.lora_B.weight": (8, 2), "x.weight": (1, 1)}, "not used: .*x"),
    ],
)  # fmt: skip
def test_every_key_is_used_or_named(
    shapes: dict[str, tuple[int, int]], says: str, base: Path, adapter: Path, tmp_path: Path
) -> None:
    write(adapter, **shapes)
    with pytest.raises(CheckpointError, match=says):
        merge_adapter(adapter, tmp_path / "merged", parts=Parts(base=base))
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    "changes", [{"lora_alpha": 10**300}, {"lora_alpha": -1e39}, {"alpha_pattern": {"q_proj": 1e39}}]
)
def test_a_scale_that_float32_does_not_hold(changes: dict[str, Any], base: Path, adapter: Path, tmp_path: Path) -> None:
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | changes))
    with pytest.raises(CheckpointError, match=r"(lora_alpha|alpha_pattern) is .* numbers? below 1e\+38 is supported"):
        merge_adapter(adapter, tmp_path / "merged", parts=Parts(base=base))
    assert not (tmp_path / "merged").exists()
