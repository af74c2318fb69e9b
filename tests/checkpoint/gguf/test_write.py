"""What is written for llama.cpp is the model, read back with the format's own package and with transformers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.contents import read_contents
from llavakit.checkpoint.gguf.write import write_gguf
from llavakit.checkpoint.reader import StoredTensor, Tensors
from llavakit.checkpoint.save import save
from llavakit.config import (
    LanguageConfig,
    LlavaConfig,
    ProjectorConfig,
    RopeScaling,
    SpecialTokens,
    TilingConfig,
    VisionConfig,
)
from llavakit.model import Images, Llava
from llavakit.model.layers import rotary_angles
from llavakit.processing.image import preprocess
from llavakit.processing.tokenizer import Tokenizer

CONFIG = LlavaConfig(
    vision=VisionConfig(image_size=28, patch_size=14, hidden_size=32, intermediate_size=64, num_layers=3, num_heads=2),
    language=LanguageConfig(
        vocab_size=270,
        hidden_size=64,
        intermediate_size=96,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_positions=128,
    ),
    tokens=SpecialTokens(pad=0, bos=1, eos=2, image=3),
)


def changed(config: LlavaConfig = CONFIG, **changes: dict) -> LlavaConfig:
    """The configuration with some values of its parts replaced."""
    parts = {name: getattr(config, name).model_copy(update=values) for name, values in changes.items()}
    return config.model_copy(update=parts)


def stored(model: Llava) -> Tensors:
    """A model's tensors as a file would give them."""
    named = model.state_dict().items()
    return {name: StoredTensor(name, tuple(t.shape), "F32", lambda t=t: t) for name, t in named}


def made(config: LlavaConfig) -> Llava:
    """A random model whose weights are all numbers of 16 bits."""
    generator = torch.Generator().manual_seed(0)
    model = Llava(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model.half().float().eval()


def read(path: Path) -> tuple[dict, dict[str, np.ndarray], dict[str, str]]:
    """The metadata, the tensors in PyTorch's shapes, and their types."""
    reader = gguf.GGUFReader(path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        t.name: gguf.dequantize(t.data, t.tensor_type).reshape(t.shape[::-1].tolist()).copy() for t in reader.tensors
    }
    return metadata, tensors, {t.name: t.tensor_type.name for t in reader.tensors}


def write(model: Llava, tokenizer: Tokenizer, folder: Path, precision: str = "f16") -> tuple[Path, Path]:
    write_gguf(model.config, stored(model), tokenizer, folder, name="m", precision=precision)
    return folder / f"m-{precision}.gguf", folder / "mmproj-m-f16.gguf"


def interleaved(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows as llama.cpp has them, one by one."""
    dim = len(weight) // num_heads
    rows = []
    for head in range(num_heads):
        for pair in range(dim // 2):
            rows += [weight[head * dim + pair], weight[head * dim + pair + dim // 2]]
    return np.stack(rows)


def test_every_weight_comes_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(CONFIG)
    language, mmproj = write(model, tokenizer, tmp_path)
    ours = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    expected = {
        "token_embd.weight": ours["language.embed_tokens.weight"],
        "output_norm.weight": ours["language.norm.weight"],
        "output.weight": ours["language.lm_head.weight"],
    }
    for i in range(2):
        layer = f"language.layers.{i}"
        expected |= {
            f"blk.{i}.attn_norm.weight": ours[f"{layer}.input_layernorm.weight"],
            f"blk.{i}.attn_q.weight": interleaved(ours[f"{layer}.self_attn.q_proj.weight"], 4),
            f"blk.{i}.attn_k.weight": interleaved(ours[f"{layer}.self_attn.k_proj.weight"], 2),
            f"blk.{i}.attn_v.weight": ours[f"{layer}.self_attn.v_proj.weight"],
            f"blk.{i}.attn_output.weight": ours[f"{layer}.self_attn.o_proj.weight"],
            f"blk.{i}.ffn_norm.weight": ours[f"{layer}.post_attention_layernorm.weight"],
            f"blk.{i}.ffn_gate.weight": ours[f"{layer}.mlp.gate_proj.weight"],
            f"blk.{i}.ffn_up.weight": ours[f"{layer}.mlp.up_proj.weight"],
            f"blk.{i}.ffn_down.weight": ours[f"{layer}.mlp.down_proj.weight"],
        }
    assert_same(read(language)[1], expected)
    expected = {
        "v.class_embd": ours["vision.embeddings.class_embedding"],
        "v.patch_embd.weight": ours["vision.embeddings.patch_embedding.weight"],
        "v.position_embd.weight": ours["vision.embeddings.position_embedding.weight"],
    }
    names = {"ln1": "layer_norm1", "ln2": "layer_norm2", "ffn_down": "mlp.fc1", "ffn_up": "mlp.fc2"}
    names |= {f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"} | {"attn_out": "self_attn.out_proj"}
    for leaf in ("weight", "bias"):
        expected |= {
            f"mm.0.{leaf}": ours[f"projector.fc1.{leaf}"],
            f"mm.2.{leaf}": ours[f"projector.fc2.{leaf}"],
            f"v.pre_ln.{leaf}": ours[f"vision.pre_layrnorm.{leaf}"],
        }
        for i in range(2):
            expected |= {f"v.blk.{i}.{a}.{leaf}": ours[f"vision.layers.{i}.{b}.{leaf}"] for a, b in names.items()}
    assert_same(read(mmproj)[1], expected)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].shape == values.shape, name
        assert np.array_equal(found[name], values), name


def test_metadata(tokenizer: Tokenizer, tmp_path: Path) -> None:
    language, mmproj = write(made(CONFIG), tokenizer, tmp_path)
    metadata = read(language)[0]
    assert metadata["general.architecture"] == "llama"
    assert (metadata["general.name"], metadata["general.type"], metadata["general.file_type"]) == ("m", "model", 1)
    said = {key.removeprefix("llama."): value for key, value in metadata.items() if key.startswith("llama.")}
    assert said.pop("attention.layer_norm_rms_epsilon") == pytest.approx(1e-6)
    assert said == {
        "vocab_size": 270,
        "context_length": 128,
        "embedding_length": 64,
        "block_count": 2,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 16,
        "attention.value_length": 16,
        "rope.dimension_count": 16,
        "rope.freq_base": 10000.0,
    }
    metadata = read(mmproj)[0]
    assert (metadata["general.architecture"], metadata["general.type"]) == ("clip", "mmproj")
    said = {key.removeprefix("clip."): value for key, value in metadata.items() if key.startswith("clip.")}
    assert said.pop("vision.image_mean") == pytest.approx(CONFIG.vision.image_mean)
    assert said.pop("vision.image_std") == pytest.approx(CONFIG.vision.image_std)
    assert said.pop("vision.attention.layer_norm_epsilon") == pytest.approx(1e-5)
    assert said == {
        "has_vision_encoder": True,
        "has_text_encoder": False,
        "has_llava_projector": True,
        "projector_type": "mlp",
        "use_gelu": False,
        "vision.image_size": 28,
        "vision.patch_size": 14,
        "vision.embedding_length": 32,
        "vision.feed_forward_length": 64,
        "vision.projection_dim": 64,
        "vision.block_count": 2,
        "vision.attention.head_count": 2,
        "vision.feature_layer": [2],
        "vision.image_aspect_ratio": "pad",
        "vision.mm_patch_merge_type": "flat",
    }


def in_transformers(path: Path) -> PreTrainedModel:
    """The language model as transformers reads it out of a GGUF file."""
    described = load_gguf_checkpoint(path)["config"]
    config = AutoConfig.for_model(described.pop("model_type"), **described)
    theirs = AutoModelForCausalLM.from_config(config).eval()
    tensors = load_gguf_checkpoint(path, return_tensors=True, model_to_load=theirs)["tensors"]
    if config.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    theirs.load_state_dict(tensors)
    return theirs


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_transformers_reads_the_language_model(
    tie: bool, bias: bool, tokenizer: Tokenizer, tmp_path: Path, compared: Any
) -> None:
    model = made(changed(language={"tie_embeddings": tie, "qkv_bias": bias}))
    language, _ = write(model, tokenizer, tmp_path)
    theirs = in_transformers(language)
    assert theirs.config.model_type == ("qwen2" if bias else "llama")
    ids = torch.arange(40, 60)[None]
    with torch.inference_mode():
        hidden = model.language(model.language.embed(ids), torch.arange(20)[None])
        compared.close(
            model.language.logits(hidden),
            theirs(ids).logits,
            subject=f"gguf, random {theirs.config.model_type} in F16",
            stage="logits",
            oracle="transformers",
            atol=1e-4,
        )


def test_biased_heads_of_another_width_are_a_llama(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(changed(language={"qkv_bias": True, "head_dim": 8}))
    metadata, tensors, _ = read(write(model, tokenizer, tmp_path)[0])
    assert metadata["general.architecture"] == "llama"
    bias = model.state_dict()["language.layers.0.self_attn.k_proj.bias"].numpy()
    assert np.array_equal(tensors["blk.0.attn_k.bias"], interleaved(bias, 2))


LLAMA_3 = RopeScaling(kind="llama3", factor=8, low_freq_factor=1, high_freq_factor=4, original_positions=32)


@pytest.mark.parametrize("scaling", [RopeScaling(kind="linear", factor=4), LLAMA_3])
@pytest.mark.parametrize("bias", [True, False])
def test_slowed_rotary_positions(scaling: RopeScaling, bias: bool, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(changed(language={"rope_scaling": scaling, "qkv_bias": bias}))
    metadata, tensors, _ = read(write(model, tokenizer, tmp_path)[0])
    name = metadata["general.architecture"]
    if scaling.kind == "linear":
        assert name == ("qwen2" if bias else "llama")
        assert (metadata[f"{name}.rope.scaling.type"], metadata[f"{name}.rope.scaling.factor"]) == ("linear", 4)
        assert "rope_freqs.weight" not in tensors
        return
    # Only its `llama` reads factors. Angles with them are those that we turn by.
    assert name == "llama"
    assert "llama.rope.scaling.type" not in metadata
    frequencies = 10000.0 ** (-np.arange(8) / 8) / tensors["rope_freqs.weight"]
    positions = torch.arange(100)[None]
    cosines, _ = rotary_angles(positions, head_dim=16, theta=10000.0, scaling=scaling)
    assert np.allclose(np.cos(np.arange(100)[:, None] * frequencies), cosines[0, 0, :, :8], atol=1e-4)
    assert 1 < tensors["rope_freqs.weight"].max() <= 8


def q8_0(block: list[float]) -> list[float]:
    scale = max(map(abs, block)) / 127
    stored_scale = float(np.float16(scale))
    # Away from zero at one half, as C rounds.
    return [stored_scale * (int(abs(x) / scale + 0.5) * (1 if x > 0 else -1)) for x in block]


def q4_0(block: list[float]) -> list[float]:
    scale = max(block, key=abs) / -8
    stored_scale = float(np.float16(scale))
    return [stored_scale * (min(15, int(x / scale + 8.5)) - 8) for x in block]


@pytest.mark.parametrize(("precision", "twin", "error"), [("q8_0", q8_0, 0.005), ("q4_0", q4_0, 0.08)])
def test_quantised_blocks(precision: str, twin: object, error: float, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(CONFIG)
    _, tensors, types = read(write(model, tokenizer, tmp_path, precision)[0])
    weight = model.state_dict()["language.layers.1.mlp.up_proj.weight"].numpy()
    found = tensors["blk.1.ffn_up.weight"]
    for row in range(0, len(weight), 7):
        blocks = weight[row].astype(float).reshape(-1, 32).tolist()
        expected = np.concatenate([twin(block) for block in blocks])
        # A number on the edge between two steps may fall to either side.
        assert (np.abs(found[row] - expected) < 1e-6).mean() > 0.98
    assert np.sqrt(np.square(found - weight).mean()) < error * weight.std() * 2
    assert types["blk.1.ffn_up.weight"] == precision.upper()


@pytest.mark.parametrize("tie", [True, False])
def test_which_tensors_are_quantised(tie: bool, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(changed(language={"tie_embeddings": tie, "intermediate_size": 40}))
    language, mmproj = write(model, tokenizer, tmp_path, "q4_0")
    metadata, _, types = read(language)
    assert metadata["general.file_type"] == 2
    assert types["token_embd.weight"] == ("Q8_0" if tie else "Q4_0")
    assert types.get("output.weight", "Q8_0") == "Q8_0"
    assert types["blk.0.attn_q.weight"] == types["blk.0.ffn_gate.weight"] == "Q4_0"
    assert types["blk.0.ffn_down.weight"] == "F16"  # rows of 40 are no whole number of blocks
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert set(read(write(model, tokenizer, tmp_path, "q8_0")[0])[2].values()) == {"F16", "F32", "Q8_0"}
    metadata, _, types = read(mmproj)
    assert metadata["general.file_type"] == 1
    wide = {name for name, type in types.items() if type == "F32"}
    assert {"v.class_embd", "v.position_embd.weight", "v.pre_ln.weight", "mm.0.bias"} < wide
    assert {types[name] for name in types.keys() - wide} == {"F16"}
    assert types["v.patch_embd.weight"] == types["mm.2.weight"] == "F16"


def test_what_was_quantised_still_speaks(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """By transformers: 8 bits hardly change the scores, 4 bits do."""
    model = made(CONFIG)
    ids = torch.arange(40, 60)[None]
    scores = {}
    for precision in ("f16", "q8_0", "q4_0"):
        theirs = in_transformers(write(model, tokenizer, tmp_path, precision)[0])
        with torch.inference_mode():
            scores[precision] = theirs(ids).logits
    off = {name: (scores[name] - scores["f16"]).std() / scores["f16"].std() for name in ("q8_0", "q4_0")}
    assert off["q8_0"] < 0.03 < off["q4_0"] < 0.5, off


def mm(tensors: dict[str, np.ndarray], features: torch.Tensor) -> torch.Tensor:
    """The projector as llama.cpp computes it."""
    weights = {name: torch.from_numpy(tensor) for name, tensor in tensors.items() if name.startswith("mm.")}
    between = F.gelu(F.linear(features, weights["mm.0.weight"], weights["mm.0.bias"]), approximate="tanh")
    return F.linear(between, weights["mm.2.weight"], weights["mm.2.bias"])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["linear", "mlp2x_gelu"])
def test_every_projector_can_be_said(kind: str, bias: bool, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(CONFIG.model_copy(update={"projector": ProjectorConfig(kind=kind, bias=bias)}))
    tensors = read(write(model, tokenizer, tmp_path)[1])[1]
    features = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        # A single matrix is exact; between two there is GELU by tanh, a thousandth off.
        assert torch.allclose(mm(tensors, features), model.projector(features), atol=1e-5 if kind == "linear" else 5e-3)


SIGLIP = {"class_token": False, "pre_norm": False, "patch_bias": True, "activation": "gelu_tanh"}


def test_siglip(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """No class vector, no first norm, patches with a bias, and pixels left over."""
    model = made(changed(vision=SIGLIP | {"image_size": 30}).model_copy(update={"resize_mode": "stretch"}))
    (remark,) = write_gguf(model.config, stored(model), tokenizer, tmp_path, name="m")
    assert remark == "llama.cpp pads pictures to a square, where this model was trained to see them pulled into shape"
    metadata, tensors, _ = read(tmp_path / "mmproj-m-f16.gguf")
    assert metadata["clip.use_gelu"] is True
    assert not {"v.class_embd", "v.pre_ln.weight"} & tensors.keys()
    bias = model.state_dict()["vision.embeddings.patch_embedding.bias"].numpy()
    assert np.array_equal(tensors["v.patch_embd.bias"], bias)
    assert tensors["v.position_embd.weight"].shape == (4, 32)


def test_tiles(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tiling = TilingConfig(pinpoints=[(28, 56), (56, 28)])
    model = made(CONFIG.model_copy(update={"resize_mode": "anyres", "tiling": tiling}))
    remarks = write_gguf(model.config, stored(model), tokenizer, tmp_path, name="m")
    metadata, tensors, _ = read(tmp_path / "mmproj-m-f16.gguf")
    assert metadata["clip.vision.image_grid_pinpoints"] == [28, 56, 56, 28]
    assert metadata["clip.vision.mm_patch_merge_type"] == "spatial_unpad"
    assert np.array_equal(tensors["model.image_newline"], model.image_newline.detach().numpy())
    assert any("lays tiles one behind the other" in remark for remark in remarks)


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"resize_mode": "square"}, "trained on their middle"),
        ({"vision": CONFIG.vision.model_copy(update={"image_mean": (0.5, 0.5, 0.5)})}, "with the mean colour of CLIP"),
        ({"tokens": SpecialTokens(pad=0, image=3, image_start=4, image_end=5)}, "no tokens around a picture"),
        ({}, "issue 25814"),
    ],
)
def test_remarks_say_what_no_file_can(changes: dict, remark: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(CONFIG.model_copy(update=changes))
    remarks = write_gguf(model.config, stored(model), tokenizer, tmp_path, name="m")
    assert any(remark in sentence for sentence in remarks)
    assert len(remarks) == 1 + bool(changes)


def test_the_class_feature_is_refused_before_anything_is_written(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(changed(vision={"feature_select": "full"}))
    with pytest.raises(CheckpointError, match="feature_select is 'full', and llama.cpp reads the patches alone"):
        write(model, tokenizer, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_number_too_large_is_refused_and_the_file_before_stays(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(CONFIG)
    path = write(model, tokenizer, tmp_path)[0]
    before = path.read_bytes()
    with torch.no_grad():
        model.language.layers[1].mlp.down_proj.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_down\.weight holds values too large"):
        write(model, tokenizer, tmp_path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m-f16.gguf", "mmproj-m-f16.gguf"]


def test_one_tensor_at_a_time(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(CONFIG)
    alive: list[weakref.ref] = []
    most = 0

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal most
        copy = tensor.clone()
        alive.append(weakref.ref(copy))
        most = max(most, sum(one() is not None for one in alive))
        return copy

    tensors = {name: replace(t, read=lambda t=t: counted(t.read())) for name, t in stored(model).items()}
    write_gguf(CONFIG, tensors, tokenizer, tmp_path, name="m")
    assert len(alive) == len(tensors)
    assert most == 1


def test_a_folder_of_any_type_of_numbers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """bfloat16 on disk, as most checkpoints are."""
    model = made(CONFIG)
    save(model, tokenizer, tmp_path / "native", dtype=torch.bfloat16)
    contents = read_contents(tmp_path / "native")
    write_gguf(contents.config, contents.tensors, tokenizer, tmp_path, name="m")
    weight = model.state_dict()["language.layers.0.mlp.up_proj.weight"].bfloat16().float().numpy()
    assert np.array_equal(read(tmp_path / "m-f16.gguf")[1]["blk.0.ffn_up.weight"], weight.astype(np.float16))


def test_a_chat_template_is_kept(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_gguf(CONFIG, stored(made(CONFIG)), tokenizer, tmp_path, name="m", chat_template="{{ messages }}")
    assert read(tmp_path / "m-f16.gguf")[0]["tokenizer.chat_template"] == "{{ messages }}"


@pytest.mark.parametrize(
    "changes",
    [
        {"language": {"qkv_bias": True}},
        {"language": {"tie_embeddings": True, "rope_scaling": RopeScaling(kind="linear", factor=4)}},
        {"language": {"rope_scaling": LLAMA_3}},
        {"projector": {"kind": "linear"}},
        {"projector": {"bias": False}},
    ],
)
def test_llama_cpp_computes_every_kind(
    changes: dict, open_llama_cpp: Callable[[Path, Path], Any], tokenizer: Tokenizer, tmp_path: Path, compared: Any
) -> None:
    """With SigLIP's tower: test_llama_cpp.py has CLIP's, which not every llama.cpp reads rightly."""
    model = made(changed(**{"vision": SIGLIP} | changes))
    theirs = open_llama_cpp(*write(model, tokenizer, tmp_path))
    ids = [*range(40, 120)]
    pixels = torch.randint(256, (28, 28, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    picture = Image.fromarray(pixels.numpy())
    view = torch.from_numpy(preprocess(picture, model.config.vision, "pad"))[None]
    with torch.inference_mode():
        hidden = model.language(model.language.embed(torch.tensor([ids])), torch.arange(80)[None])
        scores = model.language.logits(hidden[0, -1]).numpy()
        seen = model.encode_images(Images(pixels=view)).numpy()
    about = {"subject": "gguf, random models with SigLIP's tower in F16", "oracle": theirs.name}
    compared.close(scores, theirs.begin(ids), stage="logits", atol=0.02 * float(scores.std()), **about)
    atol = 0.02 * float(seen.std())
    compared.close(seen, theirs.encode(picture), stage="projected features", atol=atol, **about)
