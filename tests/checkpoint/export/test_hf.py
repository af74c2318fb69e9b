"""What is written for transformers computes there what it computes here: same ids, same pixels, same logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, BatchFeature

from llavakit.anyres import num_image_tokens, num_views
from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.contents import Parts, read_contents
from llavakit.checkpoint.exporting import export_checkpoint
from llavakit.checkpoint.importing import import_checkpoint
from llavakit.checkpoint.load import Loaded, load
from llavakit.engine.engine import Engine
from llavakit.engine.sampling import SamplingParams
from llavakit.model import Images
from llavakit.processing import Conversation, Inputs, Picture, open_image

from .conftest import SIGLIP, TILED

LLAMA_3_1 = {
    "kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_positions": 40,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "as Mistral": {"language": {"num_kv_heads": 2}},
    "as Qwen2": {"language": {"qkv_bias": True, "num_kv_heads": 2}, "tokens": {"bos": None}, "template": "qwen_1_5"},
    "tied": {"language": {"tie_embeddings": True}},
    "cropped": {"resize_mode": "square"},
    "class feature kept": {"vision": {"feature_select": "full"}},
    "SigLIP": SIGLIP | {"resize_mode": "stretch"},
    "SigLIP, padded": SIGLIP | {"vision": SIGLIP["vision"] | {"feature_layer": -1}},
    "linear positions": {"language": {"rope_scaling": {"kind": "linear", "factor": 2.5}}},
    "llama 3.1's positions": {"language": {"rope_scaling": LLAMA_3_1, "head_dim": 16}},
    "several ends": {"tokens": {"also_ends": [7, 9]}},
    "first layer": {"vision": {"feature_layer": 1}},
    "last layer": {"vision": {"feature_layer": -1, "activation": "gelu"}},
    "embeddings as features": {"vision": {"feature_layer": -4}},
    "projector without bias": {"projector": {"bias": False}},
    "heads wider than the model": {"language": {"head_dim": 16}},
    "no word for a picture": {"tokens": {"image": 300}},
    "no word for a picture, tied": {"tokens": {"image": 300}, "language": {"tie_embeddings": True}},
    "spare rows": {"language": {"vocab_size": 340}, "tokens": {"image": 340}},
    "other numbers": {
        "language": {"rope_theta": 5e5, "rms_norm_eps": 1e-2},
        "vision": {"layer_norm_eps": 1e-2, "image_mean": (0.5, 0.4, 0.3), "image_std": (0.2, 0.25, 0.3)},
    },
    "tiled": TILED,
    "tiled SigLIP": TILED | {"vision": SIGLIP["vision"] | {"image_size": 28}},
    "tiled, as Mistral": TILED | {"language": {"num_kv_heads": 2}},
    "tiled, as Qwen2": TILED | {"language": {"qkv_bias": True}, "tokens": {"bos": None}, "template": "qwen_1_5"},
}


@pytest.fixture
def spare(make: Callable[..., Path]) -> Callable[..., Path]:
    """Vocabulary of 300 words as far as the tokenizer goes: rows up to there for every model."""

    def build(**changes: Any) -> Path:
        language = {"vocab_size": 300} | changes.pop("language", {})
        return make(language=language, **changes)

    return build


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_model(
    kind: str, spare: Callable[..., Path], drawings: list[Image.Image], tmp_path: Path, compared: Any
) -> None:
    ours = load(spare(**KINDS[kind]))
    export_checkpoint(tmp_path / "native", tmp_path / "hf", to="hf")
    oracle = theirs(tmp_path / "hf")
    for conversation in (
        Conversation().ask(drawings[0], "What is it?"),
        Conversation().ask("Hello.").answer("Hello. It is red.").ask("And ", drawings[2], "this?"),
        Conversation(system="Be brief.").ask(drawings[1], drawings[0], "Two?").answer("Two.").ask("What?"),
        Conversation(system="").ask("No picture."),
    ):
        assert_same(ours, oracle, conversation, compared, f"export, hf, {kind}")


def assert_same(ours: Loaded, oracle: tuple[Any, Any], conversation: Conversation, compared: Any, subject: str) -> None:
    inputs = ours.processor(conversation)
    model, processor = oracle
    batch = processor.apply_chat_template(
        messages(conversation), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    image = model.config.image_token_id
    ids = [image if id == ours.config.tokens.image else id for id in inputs.tokens]
    about = {"subject": subject, "oracle": "transformers as installed"}
    compared.equal(batch["input_ids"][0].tolist(), ids, stage="ids of the prompt", **about)
    # Encoding what the template wrote, as servers do, gives the same.
    written = processor.apply_chat_template(messages(conversation), add_generation_prompt=True)
    pictures = list(conversation.pictures) or None
    assert processor(text=written, images=pictures, return_tensors="pt")["input_ids"][0].tolist() == ids
    if pictures:
        views = real_views(ours, batch, inputs)
        compared.close(inputs.pixels, views, stage="pixels", atol=2e-6, **about)
    with torch.inference_mode():
        expected = logits(ours, inputs)
        found = model(**batch).logits[0]
    compared.close(expected, found[:, : expected.shape[1]], stage="logits", atol=1e-4, **about)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))


def theirs(folder: Path) -> tuple[Any, Any]:
    """Model and processor, everything in the folder used and nothing missing."""
    model, report = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval(), AutoProcessor.from_pretrained(folder)


def messages(conversation: Conversation) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    for message in conversation.messages:
        parts = [
            {"type": "image", "image": part.image} if isinstance(part, Picture) else {"type": "text", "text": part.text}
            for part in message.parts
        ]
        said.append({"role": message.role, "content": parts})
    if conversation.system is None:
        return said
    return [{"role": "system", "content": [{"type": "text", "text": conversation.system}]}, *said]


def real_views(ours: Loaded, batch: BatchFeature, inputs: Inputs) -> Tensor:
    """All views of all pictures, without the empty tiles that make their numbers equal."""
    pixels = batch["pixel_values"]
    if ours.config.tiling is None:
        return pixels
    counts = [num_views(*size, ours.config) for size in inputs.sizes]
    return torch.cat([views[:count] for views, count in zip(pixels, counts, strict=True)])


def logits(ours: Loaded, inputs: Inputs) -> Tensor:
    images = None if inputs.pixels is None else Images(inputs.pixels, sizes=inputs.sizes)
    hidden = ours.model(torch.tensor([inputs.tokens]), images, torch.arange(len(inputs.tokens))[None])
    return ours.model.language.logits(hidden[0])


IMPORTED = {"v16-anyres-vicuna": "56-c", "v16-anyres-mistral": "84-d"}


@pytest.mark.parametrize("name", IMPORTED)
def test_a_model_of_the_original_code(
    name: str, fixtures: Path, drawings: list[Image.Image], tmp_path: Path, compared: Any
) -> None:
    """Read from its own folder, with its SentencePiece tokenizer, its tiles, and no word for a picture."""
    checkpoints = fixtures / "checkpoints"
    parts = Parts(vision_tower=checkpoints / "openai" / f"clip-tiny-patch14-{IMPORTED[name]}")
    [difference] = export_checkpoint(checkpoints / name, tmp_path / "hf", to="hf", parts=parts)
    assert "rounds the patches" in difference
    ours, oracle = load(checkpoints / name, parts=parts), theirs(tmp_path / "hf")
    large = open_image(fixtures / "images" / "wide_401x83.jpg")
    for conversation in (
        Conversation().ask(large, "a chat between"),
        Conversation(system="").ask("a chat").answer("the one").ask("what", large, "is it", drawings[1]),
    ):
        assert_same(ours, oracle, conversation, compared, f"export, hf, original's {name}")


@pytest.mark.parametrize("name, given", [("v15-mlp", ("84-b", None)), ("lora", ("84-b", "vicuna-tiny"))])
def test_a_model_out_of_pickles(
    name: str,
    given: tuple[str, str | None],
    fixtures: Path,
    drawings: list[Image.Image],
    tmp_path: Path,
    compared: Any,
) -> None:
    """A tower from elsewhere, an adapter put on its base, and a tokenizer that puts its space first only."""
    checkpoints = fixtures / "checkpoints"
    tower, base = checkpoints / "openai" / f"clip-tiny-patch14-{given[0]}", given[1] and checkpoints / given[1]
    import_checkpoint(checkpoints / name, tmp_path / "native", parts=Parts(tower, base), allow_pickle=True)
    assert export_checkpoint(tmp_path / "native", tmp_path / "hf", to="hf") == []
    conversation = Conversation().ask(drawings[0], "a chat").answer("one").ask("and", drawings[2], "the other")
    subject = f"export, hf, original's {name}"
    assert_same(load(tmp_path / "native"), theirs(tmp_path / "hf"), conversation, compared, subject)


@pytest.mark.parametrize("name", ["llava-llama", "llava-mistral-dopad", "llava-next-mistral", "llava-next-qwen2"])
def test_what_came_from_llava_hf_goes_back_as_it_came(name: str, fixtures: Path, tmp_path: Path) -> None:
    source = fixtures / "hf" / "checkpoints" / name
    assert export_checkpoint(source, tmp_path / "hf", to="hf") == []
    before, after = read_contents(source), read_contents(tmp_path / "hf")
    assert after.config == before.config
    assert after.tensors.keys() == before.tensors.keys()
    for key, tensor in before.tensors.items():
        assert after.tensors[key].name == tensor.name
        assert torch.equal(after.tensors[key].read(), tensor.read()), key
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "hf"))
    for key in ("image_grid_pinpoints", "image_token_index", "image_seq_length", "vision_feature_layer", "model_type"):
        assert old.get(key) == new.get(key), key


def test_the_pocket_model_gives_the_same_answers(root: Path, tmp_path: Path, compared: Any) -> None:
    """A trained model on a real picture, generating there."""
    export_checkpoint("pocket", tmp_path / "hf", to="hf")
    ours, (model, processor) = load("pocket"), theirs(tmp_path / "hf")
    picture = open_image(root / "examples" / "drawing.png")
    talk = Conversation().ask(picture, "What color is the circle?")
    for question in ("Is the square left of the circle?", "Describe the picture."):
        answer = Engine(ours).generate(talk, SamplingParams(max_tokens=40))
        batch = processor.apply_chat_template(
            messages(talk), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        said = model.generate(**batch, do_sample=False, max_new_tokens=40)[0, batch["input_ids"].shape[1] :]
        ids = [id for id in said.tolist() if id != ours.config.tokens.eos]
        about = {"subject": "export, hf, pocket", "oracle": "transformers as installed"}
        compared.equal(list(answer.tokens), ids, stage="greedy ids", **about)
        talk = talk.answer(answer.text).ask(question)


def test_pictures_that_fit_several_canvases_get_the_same_one(spare: Callable[..., Path], tmp_path: Path) -> None:
    """The order of the pinpoints settles ties, so it must survive the turn from (width, height) to (height, width)."""
    config = load(spare(**TILED)).config
    export_checkpoint(tmp_path / "native", tmp_path / "hf", to="hf")
    processor = AutoProcessor.from_pretrained(tmp_path / "hf")
    sizes = [(width, height) for width in range(1, 200, 7) for height in range(1, 200, 5)]
    counts = processor._get_num_multimodal_tokens([size[::-1] for size in sizes])["num_image_tokens"]
    ours = [num_image_tokens(*size, config) for size in sizes]
    as_hf = config.model_copy(update={"tiling": config.tiling.model_copy(update={"compat": "hf"})})
    # But for the rounding, which is told of, all agree.
    assert counts == [num_image_tokens(*size, as_hf) for size in sizes]
    assert sum(a != b for a, b in zip(counts, ours, strict=True)) < len(sizes) / 50


def test_an_ordinary_word_does_not_become_special_for_padding(spare: Callable[..., Path], tmp_path: Path) -> None:
    """The original's Qwen models pad with word 0, an exclamation mark."""
    ours = load(spare(tokens={"pad": 40})).tokenizer
    export_checkpoint(tmp_path / "native", tmp_path / "hf", to="hf")
    theirs = AutoProcessor.from_pretrained(tmp_path / "hf").tokenizer
    word = ours.token_bytes(40).decode()
    assert theirs.pad_token == "</s>" and theirs.decode([40], skip_special_tokens=True) == word
    assert load(tmp_path / "hf").config.tokens.pad == 40


def test_servers_know_where_an_answer_ends(make: Callable[..., Path], fixtures: Path, tmp_path: Path) -> None:
    source = fixtures / "hf" / "checkpoints" / "llava-qwen2"
    chatml = load(source)
    folder = make(
        language={"vocab_size": 576},
        tokens={"bos": None, "eos": 537, "pad": 537, "image": 539},
        tokenizer=chatml.tokenizer,
        template="chatml_direct",
    )
    assert export_checkpoint(folder, tmp_path / "hf", to="hf") == []
    ends = json.loads((tmp_path / "hf" / "generation_config.json").read_text())["eos_token_id"]
    assert [chatml.tokenizer.detokenize([end], skip_special=False) for end in ends] == ["<|endoftext|>", "<|im_end|>"]
    assert read_contents(tmp_path / "hf").config == load(folder).config  # our own end token is still known
    assert AutoConfig.from_pretrained(tmp_path / "hf").dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"projector": {"kind": "linear"}}, "has no linear projector.*--to original keeps it"),
        ({"resize_mode": "pad", "tiling": TILED["tiling"]}, "resize_mode is 'pad', and it can only be 'anyres' there"),
        (
            {"resize_mode": "anyres", "tiling": TILED["tiling"] | {"merge": "flat"}},
            r"tiling\.merge is 'flat', and it can only be 'spatial_unpad' there",
        ),
        ({"tokens": {"image_start": 5, "image_end": 6}}, "words of their own around a picture"),
        ({"resize_mode": "anyres", "tiling": TILED["tiling"] | {"max_tiles": 2}}, "a model with pooled tiles"),
        (SIGLIP | {"vision": {"class_token": False}}, r"vision\.pre_norm is True, and it can only be False there"),
        ({"language": {"vocab_size": 400}, "tokens": {"eos": 350}}, "tokens.eos is 350, and the tokenizer has no word"),
    ],
)
def test_what_their_classes_cannot_hold(
    changes: dict[str, Any], says: str, spare: Callable[..., Path], tmp_path: Path
) -> None:
    spare(**changes)
    with pytest.raises(CheckpointError, match=says):
        export_checkpoint(tmp_path / "native", tmp_path / "hf", to="hf")
    assert not (tmp_path / "hf").exists()


def test_a_stop_string_that_no_file_can_say_is_told(spare: Callable[..., Path], tmp_path: Path) -> None:
    spare(template="llava_v0")
    [difference] = export_checkpoint(tmp_path / "native", tmp_path / "hf", to="hf")
    assert "an answer ends in front of '###'" in difference
