"""Every published model of the catalog: its config.json, sparse as it is, gives the model it is known to be.

published.json holds what the makers' files say, less the keys that no reader looks at; models of one shape share an
entry. Nothing of the size is allocated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llavakit import catalog
from llavakit.anyres import num_image_tokens
from llavakit.checkpoint.formats import read_config
from llavakit.checkpoint.towers import KNOWN
from llavakit.checkpoint.translate_original import is_original, translate_original
from llavakit.config import LlavaConfig
from llavakit.model import Llava

PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text())
NAMES = {name: entry["config"] for entry in PUBLISHED for name in entry["names"]}
NOT_HERE = {"llava-next-qwen-32b", "bakllava-v1-hf"}  # their configurations are not known to us

# (width, height) to tokens, by what a model does with pictures: one view of CLIP's or of SigLIP's patches, LLaVA-1.6's
# tiles, LLaVA-OneVision's; beside them the same with the ties and roundings of transformers.
TOKENS = {
    "clip": {(640, 480): 576, (336, 336): 576},
    "siglip": {(640, 480): 729, (336, 336): 729},
    "next": {(640, 480): 2340, (336, 336): 1176, (300, 200): 976, (3000, 200): 868},
    "next, hf": {(640, 480): 2340, (336, 336): 1176, (300, 200): 1464, (3000, 200): 868},
    "onevision": {(384, 384): 729 + 27 * 28, (640, 480): 729 + 40 * 55, (2304, 2304): 729 + 81 * 82},
}


def config_of(name: str, folder: Path) -> LlavaConfig:
    given = NAMES[name]
    if is_original(given):
        return translate_original(given, KNOWN[given["mm_vision_tower"]], generation={}, tokenizer={})
    (folder / "config.json").write_text(json.dumps(given))
    return read_config(folder)[0]


def closed_form(given: dict[str, Any]) -> int:
    """The parameters of a model, less the tower's last layer and final norm, worked out on paper."""
    text = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    text |= given.get("text_config", given)
    width, inner, heads = text["hidden_size"], text["intermediate_size"], text["num_attention_heads"]
    kv_width = width // heads * text.get("num_key_value_heads", heads)
    is_qwen = "qwen" in json.dumps([given["architectures"], text.get("model_type")]).lower()
    biases = width + 2 * kv_width if is_qwen else 0
    layer = 2 * width * width + 2 * width * kv_width + biases + 3 * width * inner + 2 * width
    matrices = 1 if text.get("tie_word_embeddings") else 2
    language = text["num_hidden_layers"] * layer + width + matrices * text["vocab_size"] * width
    is_siglip = "siglip" in json.dumps(given)
    side, tower_inner, layers = (1152, 4304, 26) if is_siglip else (1024, 4096, 23)
    patch = side * 3 * 14 * 14
    entrance = patch + side + 729 * side if is_siglip else patch + side + 577 * side + 2 * side
    tower = entrance + layers * (4 * (side * side + side) + 2 * side * tower_inner + tower_inner + side + 4 * side)
    projector = side * width + width + width * width + width
    is_tiled = "image_grid_pinpoints" in given or given["model_type"] == "llava_onevision"
    return language + tower + projector + (width if is_tiled else 0)


def test_every_published_model_that_is_whole_is_here() -> None:
    """Adapters, projectors and deltas are parts, and communities' models have the shape of one that is here."""
    makers = ("liuhaotian/llava-v1.6", "llava-hf/", "lmms-lab/")
    whole = {name for name, entry in catalog.MODELS.items() if entry.hub.startswith(makers)}
    assert whole - NAMES.keys() <= NOT_HERE and NAMES.keys() <= catalog.MODELS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_published_configuration_is_the_model_it_is_known_to_be(name: str, tmp_path: Path) -> None:
    config, entry = config_of(name, tmp_path), catalog.MODELS[name]
    with torch.device("meta"):
        model = Llava(config)
    assert sum(weight.numel() for weight in model.parameters()) == closed_form(NAMES[name])
    assert is_original(NAMES[name]) == (entry.format == "original")
    assert config.vision.class_token == entry.tower.startswith("CLIP")
    kind = "clip" if config.vision.class_token else "siglip"
    if config.tiling:
        kind = "onevision" if config.tiling.max_tiles else {"original": "next", "hf": "next, hf"}[config.tiling.compat]
    assert {size: num_image_tokens(*size, config) for size in TOKENS[kind]} == TOKENS[kind]
    assert config.tokens.bos is None if config.language.qkv_bias else config.tokens.bos in (1, 128000)
    assert config.tokens.image >= 32000


@pytest.mark.parametrize(
    ("name", "billions", "context"),
    [("llava-1.5-7b", 7.05, 4096), ("llava-v1.5-13b", 13.34, 4096), ("llava-v1.6-mistral-7b", 7.55, 32768),
     ("llava-v1.6-34b", 34.74, 4096), ("llama3-llava-next-8b", 8.34, 8192), ("llava-onevision-0.5b-ov", 0.89, 32768),
     ("llava-onevision-7b-ov-hf", 8.03, 32768), ("llava-next-110b", 111.58, 32768)],
)  # fmt: skip
def test_sizes_as_they_are_told(name: str, billions: float, context: int, tmp_path: Path) -> None:
    assert closed_form(NAMES[name]) / 1e9 == pytest.approx(billions, abs=0.006)
    assert config_of(name, tmp_path).language.max_positions == context
