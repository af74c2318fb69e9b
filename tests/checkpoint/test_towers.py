"""SigLIP towers beside and inside folders of the original's kind, and towers told by their shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from llavakit.checkpoint.contents import Parts, read_contents
from llavakit.checkpoint.reader import StoredTensor
from llavakit.checkpoint.towers import KNOWN, built_as, recognise
from llavakit.checkpoint.weights import load_model
from llavakit.config import LlavaConfig, VisionConfig
from llavakit.model import Images, Llava
from llavakit.model.vision import VisionTower
from llavakit.processing import preprocess

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
VISION = SIZES | {"num_hidden_layers": 3, "image_size": 30, "patch_size": 7}
LANGUAGE = SIZES | {
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "eos_token_id": 2,
}
CONFIG = LANGUAGE | {
    "architectures": ["LlavaQwenForCausalLM"],
    "model_type": "llava",
    "mm_vision_tower": "google/siglip-tiny",
    "mm_hidden_size": 16,
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
}


def shaken(model: nn.Module) -> Any:
    """With weights that make every mistake show: no bias is zero, no norm is one."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        with torch.no_grad():
            weight.copy_(1 + 0.3 * noise if weight.dim() < 2 else noise / weight[0].numel() ** 0.5)
    return model.eval()


@pytest.fixture
def tower(tmp_path: Path) -> tuple[SiglipVisionModel, Path]:
    """A tower in the folder of a whole SigLIP, as published."""
    text = SIZES | {"num_hidden_layers": 1, "vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1}
    whole = shaken(SiglipModel(SiglipConfig(vision_config=VISION, text_config=text)))
    whole.save_pretrained(tmp_path / "siglip")
    SiglipImageProcessorPil(size={"height": 30, "width": 30}).save_pretrained(tmp_path / "siglip")
    return whole.vision_model, tmp_path / "siglip"


def original(folder: Path, inside: dict[str, Tensor], **changes: Any) -> tuple[Qwen2ForCausalLM, dict[str, Tensor]]:
    """Writes a folder of the original's kind; returns its language model and its other weights."""
    language = shaken(Qwen2ForCausalLM(Qwen2Config(**LANGUAGE)))
    generator = torch.Generator().manual_seed(1)
    shapes = {"0.weight": (16, 16), "0.bias": (16,), "2.weight": (16, 16), "2.bias": (16,)}
    others = {f"model.mm_projector.{n}": torch.randn(s, generator=generator) / 4 for n, s in shapes.items()}
    others |= {f"model.vision_tower.vision_tower.{name}": tensor for name, tensor in inside.items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    save_file({k: v.clone() for k, v in (language.state_dict() | others).items()}, folder / "model.safetensors")
    return language, others


def naive(language: Qwen2ForCausalLM, others: dict[str, Tensor], features: Tensor) -> Tensor:
    """Logits over one word, the picture and three words, put together by hand."""
    for layer in (0, 2):
        weight, bias = (others[f"model.mm_projector.{layer}.{name}"] for name in ("weight", "bias"))
        features = (nn.functional.gelu(features) if layer else features) @ weight.T + bias
    words = language.model.embed_tokens(torch.tensor([[3, 4, 5, 6]]))
    return language(inputs_embeds=torch.cat((words[:, :1], features, words[:, 1:]), dim=1)).logits


def logits(model: Llava, pixels: Tensor) -> Tensor:
    row = torch.tensor([[3, *[model.config.tokens.image] * model.config.vision.num_features, 4, 5, 6]])
    return model.language.logits(model(row, Images(pixels), torch.arange(row.shape[1])[None]))


@pytest.mark.parametrize("where", ["beside", "inside, as it was trained", "inside, with its last layer"])
@torch.inference_mode()
def test_a_siglip_tower_equals_transformers(
    where: str, tower: tuple[SiglipVisionModel, Path], tmp_path: Path, compared: Any
) -> None:
    """The original takes the last layer off and reads the new last one, before the final norm."""
    oracle, folder = tower
    own = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "vision_model" in name}
    if where == "beside":
        own = {}
    elif where == "inside, as it was trained":
        own = {n: t for n, t in own.items() if "layers.2." not in n and ".head." not in n}
    language, others = original(tmp_path / "llava", own)
    model = load_model(tmp_path / "llava", parts=Parts(vision_tower=folder))
    assert len(model.vision.layers) == 2
    pixels = torch.randn(1, 3, 30, 30, generator=torch.Generator().manual_seed(2))
    del oracle.encoder.layers[-1:]
    features = oracle(pixels, output_hidden_states=True).hidden_states[-1]
    about = {"subject": f"original, SigLIP tower {where}", "oracle": "transformers as installed", "atol": 1e-5}
    compared.close(model.vision(pixels), features, stage="tower features", **about)
    compared.close(logits(model, pixels), naive(language, others, features), stage="logits", **about)


@pytest.mark.parametrize(
    ("changes", "mode"),
    [({}, "stretch"), ({"image_aspect_ratio": "square"}, "stretch"), ({"image_aspect_ratio": "pad"}, "pad")],
)
def test_its_pictures_are_as_its_processor_makes_them(
    changes: dict[str, Any], mode: str, tower: tuple[SiglipVisionModel, Path], tmp_path: Path
) -> None:
    original(tmp_path / "llava", {}, mm_vision_select_layer=-1, mm_vision_select_feature="cls_patch", **changes)
    config = read_contents(tmp_path / "llava", Parts(vision_tower=tower[1])).config
    assert config.resize_mode == mode
    assert (config.vision.feature_layer, config.vision.feature_select) == (-2, "patch"), "the original has one way"
    picture = Image.effect_noise((90, 40), 80).convert("RGB")
    oracle = SiglipImageProcessorPil.from_pretrained(tower[1])
    theirs = oracle(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(
        torch.from_numpy(preprocess(picture, config.vision, "stretch")), theirs, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    "make",
    [lambda: SiglipVisionModel(SiglipVisionConfig(**VISION)), lambda: CLIPVisionModel(CLIPVisionConfig(**VISION))],
)
@torch.inference_mode()
def test_a_tower_alone_as_transformers_5_saves_it(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    oracle = shaken(make())
    oracle.save_pretrained(tmp_path / "tower")
    original(tmp_path / "llava", {})
    ours = load_model(tmp_path / "llava", parts=Parts(vision_tower=tmp_path / "tower")).vision
    pixels = torch.randn(1, 3, 30, 30, generator=torch.Generator().manual_seed(2))
    features = oracle(pixels, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(ours(pixels), features[:, -16:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("less", [0, 1])
def test_a_published_tower_is_told_by_its_shapes(name: str, less: int) -> None:
    tower = KNOWN[name]
    with torch.device("meta"):
        state = VisionTower(tower, num_layers=tower.num_layers - less).state_dict()
    stored = {f"vision.{n}": StoredTensor(n, tuple(t.shape), "F32", lambda: None) for n, t in state.items()}
    assert recognise(stored) is tower
    del stored["vision.embeddings.position_embedding.weight"]
    assert recognise(stored) is None


def test_the_known_siglip_is_what_its_own_configuration_says(tmp_path: Path) -> None:
    """The published config.json names these sizes and leaves the rest to the defaults."""
    from llavakit.checkpoint.sections import tower_fields

    published = {"hidden_size": 1152, "image_size": 384, "intermediate_size": 4304, "model_type": "siglip_vision_model",
                 "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14}  # fmt: skip
    assert VisionConfig.parse(tower_fields(published, {})) == KNOWN["google/siglip-so400m-patch14-384"]


def test_the_doctor_knows_a_siglip_by_its_shape_with_and_without_its_last_layer() -> None:
    name = "google/siglip-so400m-patch14-384"
    cut = KNOWN[name].model_copy(update={"num_layers": 26, "feature_layer": -1})
    assert built_as(cut, may_be_cut=True) == name and built_as(cut) is None
    assert built_as(cut.model_copy(update={"num_layers": 25}), may_be_cut=True) is None
    assert built_as(KNOWN[name].model_copy(update={"hidden_size": 768}), may_be_cut=True) is None


def test_a_tower_without_a_class_vector_has_no_class_feature() -> None:
    vision = KNOWN["google/siglip-so400m-patch14-384"].model_dump() | {"feature_select": "full"}
    with pytest.raises(ValueError, match="keeps the class feature, and this tower has none: use 'patch'"):
        LlavaConfig.parse({"vision": vision})
