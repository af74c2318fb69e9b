"""Sparse llava-hf configurations mean what transformers takes them to mean; what we cannot compute is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import CLIPImageProcessor

from llavakit.checkpoint.formats import read_config
from llavakit.checkpoint.translate import translate
from llavakit.config import ConfigError, LlavaConfig, RopeScaling, TilingConfig

VOCAB = {"vocab_size": 32064}
QWEN2 = {"model_type": "qwen2", "vocab_size": 152064, "eos_token_id": 151645}
SPARSE: dict[str, dict[str, Any]] = {
    "only a vocabulary": {"text_config": VOCAB},
    "as published for 1.5-7b": {
        "text_config": VOCAB | {"max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05},
        "vision_config": {
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "model_type": "clip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "projection_dim": 768,
            "vocab_size": 32000,
        },
        "pad_token_id": 32001,
        "tie_word_embeddings": False,
    },
    "sparse tower": {"text_config": VOCAB, "vision_config": {"patch_size": 16}},
    "mistral": {"text_config": VOCAB | {"model_type": "mistral"}},
    "mistral, other groups": {"text_config": VOCAB | {"model_type": "mistral", "num_key_value_heads": 4}},
    "qwen2": {"text_config": QWEN2},
    "qwen2, other groups": {"text_config": QWEN2 | {"num_key_value_heads": 4, "rope_theta": 1e6}},
    "qwen2, no groups": {"text_config": QWEN2 | {"num_key_value_heads": None}},
    "no groups": {"text_config": VOCAB | {"num_key_value_heads": None, "head_dim": None}},
    "tied in the text": {"text_config": VOCAB | {"tie_word_embeddings": True}},
    "tied at the top": {"text_config": VOCAB, "tie_word_embeddings": True},
    "old rotary base": {"text_config": VOCAB | {"rope_theta": 5e5, "rope_scaling": None}},
    "other features": {
        "text_config": VOCAB | {"num_attention_heads": 16},
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "multimodal_projector_bias": False,
        "image_token_index": 7,
    },
}


QWEN2_HERE = {"text_config": QWEN2}
SPARSE |= {
    "siglip, sparse": {
        "text_config": VOCAB,
        "vision_config": {"model_type": "siglip_vision_model"},
        "vision_feature_select_strategy": "full",
    },
    "onevision, nothing but words": {"model_type": "llava_onevision", **QWEN2_HERE},
    "onevision, words without a type": {"model_type": "llava_onevision", "text_config": {"eos_token_id": 7}},
    "onevision, tower without a type": {
        "model_type": "llava_onevision",
        **QWEN2_HERE,
        "vision_config": {"hidden_size": 1152, "num_attention_heads": 16, "image_size": 384},
    },
    "onevision, tied in the text": {
        "model_type": "llava_onevision",
        "text_config": QWEN2 | {"tie_word_embeddings": True},
    },
}
ONEVISION = {"model_type": "llava_onevision", "eos_token_id": 2}
SPARSE_CLASSES = {"llava": transformers.LlavaConfig, "llava_onevision": transformers.LlavaOnevisionConfig}


def translated(
    config: dict[str, Any],
    *,
    image: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
    **generation: Any,
) -> LlavaConfig:
    config = {"model_type": "llava", **config}
    return translate(config, generation=generation, image=image or {}, tokenizer=tokenizer or {})


@pytest.mark.parametrize("name", SPARSE)
def test_defaults_are_those_of_transformers(name: str) -> None:
    ours = translated(SPARSE[name])
    kind = SPARSE_CLASSES[SPARSE[name].get("model_type", "llava")]
    theirs = kind.from_dict(json.loads(json.dumps(SPARSE[name])))
    text, vision = theirs.text_config, theirs.vision_config
    window = getattr(text, "sliding_window", None) or text.max_position_embeddings
    assert ours.language.model_dump() == {
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_layers": text.num_hidden_layers,
        "num_heads": text.num_attention_heads,
        "num_kv_heads": text.num_key_value_heads,
        "head_dim": getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_parameters["rope_theta"],
        "rope_scaling": None,
        "max_positions": min(text.max_position_embeddings, window),
        "tie_embeddings": theirs.tie_word_embeddings,
        "qkv_bias": text.model_type == "qwen2",
    }
    assert (ours.vision.image_size, ours.vision.patch_size) == (vision.image_size, vision.patch_size)
    assert (ours.vision.hidden_size, ours.vision.intermediate_size) == (vision.hidden_size, vision.intermediate_size)
    assert (ours.vision.num_layers, ours.vision.num_heads) == (vision.num_hidden_layers, vision.num_attention_heads)
    assert ours.vision.activation == vision.hidden_act.replace("gelu_pytorch_tanh", "gelu_tanh")
    assert ours.vision.layer_norm_eps == vision.layer_norm_eps
    assert ours.vision.class_token == ours.vision.pre_norm == (vision.model_type == "clip_vision_model")
    assert ours.vision.patch_bias == (vision.model_type == "siglip_vision_model")
    assert ours.vision.feature_layer == theirs.vision_feature_layer
    whole = theirs.vision_feature_select_strategy == "full" and ours.vision.class_token
    assert (ours.vision.feature_select == "full") == whole
    assert ours.projector.bias == theirs.multimodal_projector_bias
    assert (ours.tokens.image, ours.tokens.bos, ours.tokens.eos) == (
        theirs.image_token_index,
        text.bos_token_id if text.model_type != "qwen2" else None,
        text.eos_token_id,
    )
    if ours.tiling:
        assert ours.tiling.pinpoints == tuple((width, height) for height, width in theirs.image_grid_pinpoints)
        assert (ours.tiling.max_tiles, ours.tiling.only_alone, ours.tiling.compat) == (9, True, "hf")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"text_config": {"model_type": "gemma"}}, "text_config.model_type is 'gemma'"),
        ({"text_config": {"attention_bias": True}}, "text_config.attention_bias is True, and only false"),
        ({"text_config": {"mlp_bias": True}}, "text_config.mlp_bias is True"),
        ({"text_config": {"hidden_act": "gelu"}}, "text_config.hidden_act is 'gelu'"),
        ({"text_config": {"rope_scaling": {"type": "yarn", "factor": 2.0}}}, "text_config.rope_scaling .*'yarn', and"),
        ({"text_config": {"rope_parameters": {"rope_type": "longrope"}}}, "text_config.rope_parameters .*'longrope'"),
        ({"text_config": {"rope_scaling": {"type": ["linear"]}}}, r"text_config.rope_scaling .*\['linear'\], and only"),
        ({"text_config": {"rope_scaling": "linear"}}, "text_config.rope_scaling is 'linear', and should be an object"),
        ({"text_config": {"rope_scaling": {"type": "linear"}}}, "language.rope_scaling.factor is missing"),
        ({"text_config": {"rope_scaling": {"type": "linear", "factor": 0}}}, "language.rope_scaling.factor is 0"),
        ({"text_config": {"rope_scaling": {"type": "llama3", "factor": 8}}}, "'llama3' needs original_positions"),
        ({"text_config": {"partial_rotary_factor": 0.5}}, "text_config.partial_rotary_factor is not 1"),
        ({"text_config": {"num_attention_heads": 0}}, "num_attention_heads is 0, and only a positive whole number"),
        ({"text_config": {"hidden_size": "big"}}, "hidden_size is 'big'"),
        ({"text_config": {"eos_token_id": []}}, "eos_token_id is given nowhere"),
        ({"text_config": {"eos_token_id": [2, "</s>"]}}, "tokens.also_ends.0 is '</s>'"),
        ({"text_config": {"eos_token_id": [2, 40000]}}, "tokens.also_ends is 40000, outside the vocabulary of 32064"),
        ({"text_config": "llama"}, "text_config is 'llama', and should be an object"),
        ({"vision_config": {"model_type": "dinov2"}}, "vision_config.model_type is 'dinov2', and only 'clip_vision_m"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "'default', which leaves out the class feature"),
        ({"vision_config": {"hidden_act": "relu"}}, "vision_config.hidden_act"),
        ({"vision_config": {"num_channels": 4}}, "vision_config.num_channels is 4"),
        ({"vision_config": {"image_size": 25}}, "image_size 25 is less than one patch of 32 pixels"),
        ({**ONEVISION, "vision_aspect_ratio": "anyres"}, "vision_aspect_ratio is 'anyres', and only 'anyres_max_N'"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act is 'relu', and only 'gelu'"),
        ({"vision_feature_layer": [-2, -5]}, r"vision_feature_layer is \[-2, -5\], and features of several layers"),
        ({"vision_feature_layer": -40}, "feature_layer -40 lies outside a tower of 24 layers"),
        ({"vision_feature_select_strategy": "cls"}, "vision_feature_select_strategy is 'cls'"),
        ({"quantization_config": {"bits": 4}}, "quantised weights are not read"),
        ({"image_token_index": 32065}, "tokens.image is 32065, outside the vocabulary of 32064"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(change: dict[str, Any], sentence: str) -> None:
    text = change.get("text_config", {})
    config = change | {"text_config": VOCAB | text if isinstance(text, dict) else text}
    with pytest.raises(ConfigError, match=sentence):
        translated(config)


def test_mistral_is_exact_inside_one_window() -> None:
    text = VOCAB | {"model_type": "mistral"}
    assert translated({"text_config": text}).language.max_positions == 4096
    assert translated({"text_config": text | {"sliding_window": None}}).language.max_positions == 131072


def test_qwen2_slides_only_where_it_says_so() -> None:
    assert translated({"text_config": QWEN2}).language.max_positions == 32768
    assert translated({"text_config": QWEN2 | {"use_sliding_window": True}}).language.max_positions == 4096


def test_qwen2_begins_with_nothing_and_has_to_say_how_it_ends() -> None:
    text = {"text_config": QWEN2 | {"bos_token_id": 151643}}
    assert translated(text).tokens.bos is None
    assert translated(text, bos_token_id=151643).tokens.bos is None
    with pytest.raises(ConfigError, match="eos_token_id is given nowhere"):
        translated({"text_config": {**QWEN2, "eos_token_id": None}})


def test_next_has_its_pinpoints_turned() -> None:
    config = translated({"model_type": "llava_next", "text_config": VOCAB})
    theirs = transformers.LlavaNextConfig().image_grid_pinpoints
    assert config.resize_mode == "anyres"
    assert config.tiling == TilingConfig(pinpoints=[pair[::-1] for pair in theirs], compat="hf")
    given = translated(
        {"model_type": "llava_next", "text_config": VOCAB, "image_grid_pinpoints": [[336, 672]]},
        image={"image_processor_type": "LlavaNextImageProcessor", "do_pad": True, "image_grid_pinpoints": [[336, 672]]},
    )
    assert given.tiling.pinpoints == ((672, 336),)
    with pytest.raises(ConfigError, match=r"image_grid_pinpoints is \[\(336, 336\)\], but the model's are"):
        translated({"model_type": "llava_next", "text_config": VOCAB}, image={"image_grid_pinpoints": [[336, 336]]})


def test_where_the_special_tokens_come_from() -> None:
    text = {"text_config": VOCAB | {"eos_token_id": 5, "pad_token_id": 6}}
    assert translated(text).tokens.eos == 5
    assert translated(text).tokens.pad == 6
    assert translated({**text, "pad_token_id": 7}).tokens.pad == 7
    tokens = translated({**text, "pad_token_id": 7}, pad_token_id=8, eos_token_id=[9], bos_token_id=4).tokens
    assert (tokens.pad, tokens.eos, tokens.bos) == (8, 9, 4)
    several = translated(text, eos_token_id=[9, 3]).tokens
    assert (several.eos, several.also_ends, several.ends, several.pad) == (9, (3,), (9, 3), 6)
    assert translated({"text_config": VOCAB}).tokens.pad == 2, "without a padding token, the end token pads"


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        ({}, "pad"),
        ({"image_processor_type": "CLIPImageProcessor"}, "square"),
        ({"do_center_crop": True, "crop_size": 336, "size": 336}, "square"),
        ({"do_pad": False, "do_center_crop": True}, "square"),
        ({"image_processor_type": "LlavaImageProcessor", "do_pad": True}, "pad"),
        ({"size": {"height": 336, "width": 336}}, "stretch"),
    ],
)
def test_resize_mode(image: dict[str, Any], mode: str) -> None:
    assert translated({"text_config": VOCAB}, image=image).resize_mode == mode


def test_image_settings_as_transformers_saves_them(tmp_path: Path) -> None:
    CLIPImageProcessor(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, image_mean=[0.5, 0.4, 0.3]
    ).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": VOCAB}))
    config, _ = read_config(tmp_path)
    assert config.resize_mode == "square"
    assert config.vision.image_mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ({"size": {"shortest_edge": 224}}, "size is .*224.*, but the tower takes pictures of 336 pixels"),
        ({"crop_size": 224}, "crop_size is 224"),
        ({"do_center_crop": False}, "pictures are neither padded nor cropped"),
        ({"do_normalize": False}, "do_normalize is False"),
        ({"resample": 2}, r"resample is 2, and only 3 \(bicubic\)"),
        ({"rescale_factor": 1.0}, "rescale_factor is 1.0"),
    ],
)
def test_image_settings_that_cannot_be_followed(image: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"image settings: {sentence}"):
        translated({"text_config": VOCAB}, image=image)


LLAMA_3_1 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize(
    ("given", "theta", "scaling"),
    [
        ({"rope_theta": 5e5, "rope_scaling": None}, 5e5, None),
        ({"rope_theta": 5e5, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, 5e5, None),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 1e4, {"kind": "linear", "factor": 4.0}),
        (
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA_3_1}},
            5e5,
            {"kind": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_positions": 8192},
        ),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rope_theta": 5}, 1e6, None),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 1e6}},
            1e6,
            {"kind": "linear", "factor": 2},
        ),
    ],
)
def test_positions_in_old_and_new_spelling(given: dict[str, Any], theta: float, scaling: dict[str, Any] | None) -> None:
    language = translated({"text_config": VOCAB | given}).language
    assert language.rope_theta == theta
    assert language.rope_scaling == (scaling and RopeScaling(**scaling))


@pytest.mark.parametrize(
    ("settings", "bos"),
    [({}, 1), ({"add_bos_token": True, "bos_token": "<s>"}, 1), ({"bos_token": {"content": "<s>"}}, 1),
     ({"add_bos_token": False, "bos_token": "<s>"}, None), ({"bos_token": None}, None)],
)  # fmt: skip
def test_the_tokenizers_settings_say_whether_a_text_has_a_beginning(settings: dict[str, Any], bos: int | None) -> None:
    assert translated({"text_config": VOCAB | {"bos_token_id": 1}}, tokenizer=settings).tokens.bos == bos


def test_a_context_longer_than_the_first_one() -> None:
    """As Vicuna's 16k models say it."""
    text = VOCAB | {"max_position_embeddings": 4096, "max_sequence_length": 16384}
    language = translated({"text_config": text | {"rope_scaling": {"factor": 4.0, "type": "linear"}}}).language
    assert language.max_positions == 16384
