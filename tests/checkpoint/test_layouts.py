"""One model of transformers under all the names its weights have had, read to the same model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.weights import load_model

Oracle = LlavaForConditionalGeneration | LlavaNextForConditionalGeneration


@pytest.fixture(scope="module", params=["llava", "next"])
def oracle(request: pytest.FixtureRequest) -> Oracle:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2}
    parts = {
        "text_config": LlamaConfig(**sizes, num_hidden_layers=2, vocab_size=20),
        "vision_config": CLIPVisionConfig(**sizes, num_hidden_layers=3, image_size=14, patch_size=7),
        "image_token_index": 19,
    }
    if request.param == "llava":
        return LlavaForConditionalGeneration(LlavaConfig(**parts))
    return LlavaNextForConditionalGeneration(LlavaNextConfig(**parts, image_grid_pinpoints=[[14, 28]]))


def published(memory: str) -> str:
    """The name on disk for one in memory."""
    if memory.startswith("lm_head."):
        return f"language_model.{memory}"
    name = memory.removeprefix("model.").replace("vision_tower.", "vision_tower.vision_model.")
    return name.replace("language_model.", "language_model.model.")


LAYOUTS: dict[str, Callable[[str], str]] = {
    "published files": published,
    "transformers 5, memory": lambda name: name,
    "transformers 4.52, memory": lambda name: name.replace("vision_tower.", "vision_tower.vision_model."),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, oracle: Oracle, tmp_path: Path) -> None:
    write(oracle, {LAYOUTS[layout](name): tensor for name, tensor in oracle.state_dict().items()}, tmp_path)
    check(tmp_path, oracle)


def test_the_layout_of_a_model_never_loaded(oracle: Oracle, tmp_path: Path) -> None:
    oracle.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    assert "language_model.lm_head.weight" in names or "lm_head.weight" in names
    check(tmp_path, oracle)


def test_old_buffers_are_known_and_dropped(oracle: Oracle, tmp_path: Path) -> None:
    tensors = {published(name): tensor for name, tensor in oracle.state_dict().items()}
    tensors["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    tensors["language_model.model.layers.1.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    write(oracle, tensors, tmp_path)
    check(tmp_path, oracle)


def test_a_foreign_key_at_fault_is_named_as_in_its_file(oracle: Oracle, tmp_path: Path) -> None:
    tensors = {published(name): tensor for name, tensor in oracle.state_dict().items()}
    write(oracle, tensors | {"multi_modal_projector.linear_3.bias": torch.zeros(1)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"not used: multi_modal_projector\.linear_3\.bias$"):
        load_model(tmp_path)


def write(oracle: Oracle, tensors: dict[str, Tensor], folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(oracle.config.to_dict()))
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")


def check(folder: Path, oracle: Oracle) -> None:
    ours, theirs = load_model(folder), oracle.model
    assert len(ours.vision.layers) == 2
    for one, other in (
        (ours.language.lm_head.weight, oracle.lm_head.weight),
        (ours.language.layers[1].mlp.down_proj.weight, theirs.language_model.layers[1].mlp.down_proj.weight),
        (ours.vision.layers[1].self_attn.k_proj.bias, theirs.vision_tower.encoder.layers[1].self_attn.k_proj.bias),
        (ours.projector.fc2.weight, theirs.multi_modal_projector.linear_2.weight),
    ):
        assert torch.equal(one, other)
    if ours.image_newline is not None:
        assert torch.equal(ours.image_newline, theirs.image_newline)
