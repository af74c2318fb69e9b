"""Law 5: what is saved is what is loaded, bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from llavakit.checkpoint import CheckpointError, weights
from llavakit.checkpoint.load import load
from llavakit.checkpoint.save import save
from llavakit.checkpoint.weights import load_model
from llavakit.config import LlavaConfig, TilingConfig
from llavakit.model import Images, Llava
from llavakit.processing.conversation import Conversation
from llavakit.processing.tokenizer import Tokenizer


def assert_same_weights(one: Llava, other: Llava) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


def test_loaded_equals_saved(model: Llava, tokenizer: Tokenizer, folder: Path) -> None:
    loaded = load(folder)
    assert_same_weights(loaded.model, model)
    assert loaded.config == model.config
    assert loaded.name == "tiny"
    assert loaded.tokenizer.tokenize("a cat") == tokenizer.tokenize("a cat")
    assert not loaded.model.training
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_saved_again_is_the_same_to_the_byte(folder: Path, tmp_path: Path) -> None:
    loaded = load(folder)
    save(loaded.model, loaded.tokenizer, tmp_path / "again" / "tiny")
    for path in folder.iterdir():
        assert (tmp_path / "again" / "tiny" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_loaded_model_may_be_saved_over_its_own_files(model: Llava, folder: Path) -> None:
    for _ in range(2):
        loaded = load(folder)
        save(loaded.model, loaded.tokenizer, folder)
    assert_same_weights(load(folder).model, model)


def test_tied_embeddings_are_stored_once(model: Llava, tokenizer: Tokenizer, tmp_path: Path) -> None:
    language = model.config.language.model_copy(update={"tie_embeddings": True})
    tied = Llava(model.config.model_copy(update={"language": language}))
    save(tied, tokenizer, tmp_path / "tied")
    loaded = load(tmp_path / "tied").model
    assert_same_weights(loaded, tied)
    assert loaded.language.output_weight is loaded.language.embed_tokens.weight


def test_tiles_and_biases_are_kept(model: Llava, tokenizer: Tokenizer, tmp_path: Path) -> None:
    language = model.config.language.model_copy(update={"qkv_bias": True})
    tiling = TilingConfig(pinpoints=[(14, 28), (28, 14)], max_tiles=4, compat="hf")
    changes = {"language": language, "resize_mode": "anyres", "tiling": tiling}
    tiled = Llava(model.config.model_copy(update=changes))
    for weight in tiled.parameters():
        torch.nn.init.normal_(weight)
    save(tiled, tokenizer, tmp_path / "tiled")
    loaded = load(tmp_path / "tiled")
    assert_same_weights(loaded.model, tiled)
    assert loaded.config == tiled.config
    assert {"image_newline", "language.layers.1.self_attn.k_proj.bias"} < loaded.model.state_dict().keys()


def test_a_configuration_from_before_there_were_tiles(model: Llava, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["tiling"], config["language"]["qkv_bias"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load(folder).config == model.config


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_weights_are_widened_on_a_cpu_and_kept_if_asked(
    dtype: torch.dtype, model: Llava, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save(model, tokenizer, tmp_path / "half", dtype=dtype)
    assert_same_weights(load(tmp_path / "half", dtype=dtype).model, model.to(dtype))
    assert_same_weights(load(tmp_path / "half").model, model.to(dtype).float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_large_model_stays_in_16_bits_on_a_cpu(
    dtype: torch.dtype, model: Llava, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(model, tokenizer, tmp_path / "half", dtype=dtype)
    monkeypatch.setattr(weights, "LARGEST_WIDENED", 1000)
    assert_same_weights(load(tmp_path / "half").model, model.to(dtype).bfloat16())


def test_a_loaded_model_can_learn_and_leaves_its_file_alone(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    model = load(folder).model
    assert all(weight.requires_grad for weight in model.parameters())
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    assert (folder / "model.safetensors").read_bytes() == before


def test_all_that_is_needed_to_talk_is_there(folder: Path) -> None:
    loaded = load(folder)
    inputs = loaded.processor(Conversation().ask(Image.new("RGB", (20, 10)), "what?"))
    tokens = torch.tensor([inputs.tokens])
    with torch.inference_mode():
        hidden = loaded.model(tokens, Images(pixels=inputs.pixels), torch.arange(tokens.shape[1])[None])
    assert hidden.shape == (1, len(inputs.tokens), loaded.config.language.hidden_size)


def test_the_card_is_what_was_given(model: Llava, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(model, tokenizer, tmp_path / "m", card="# A card\n")
    assert (tmp_path / "m" / "README.md").read_text() == "# A card\n"


def test_a_weight_that_does_not_fit_its_type_is_not_saved_as_infinity(
    model: Llava, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with torch.no_grad():
        model.projector.fc1.bias[0] = 1e5
    with pytest.raises(CheckpointError, match=r"projector\.fc1\.bias holds values too large for torch\.float16"):
        save(model, tokenizer, tmp_path / "m", dtype=torch.float16)
    assert not (tmp_path / "m").exists()


def test_saving_never_deletes_what_it_did_not_write(model: Llava, tokenizer: Tokenizer, folder: Path) -> None:
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"would delete thesis\.tex"):
        save(model, tokenizer, folder)
    assert (folder / "thesis.tex").exists()


@pytest.mark.parametrize(
    "files", [{"README.md": "# Mine"}, {"config.json": '{"model_type": "clip"}', "README.md": "x"}]
)
def test_what_somebody_else_wrote_is_kept(
    files: dict[str, str], model: Llava, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=r"would delete .*README\.md.*, which llavakit has not written"):
        save(model, tokenizer, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_a_narrower_type_that_cannot_hold_a_weight_is_refused(
    model: Llava, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with torch.no_grad():
        model.projector.fc1.bias[0] = 1e5
    save(model, tokenizer, tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"projector\.fc1\.bias holds values too large for float16"):
        load(tmp_path / "m", dtype=torch.float16)


def test_a_file_is_no_folder(model: Llava, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "m").write_text("")
    with pytest.raises(CheckpointError, match="is a file; a checkpoint is a folder"):
        save(model, tokenizer, tmp_path / "m")


def test_hugging_face_folders_load_whole(fixtures: Path) -> None:
    loaded = load(fixtures / "hf" / "checkpoints" / "llava-llama")
    assert loaded.tokenizer.size == 546
    inputs = loaded.processor(Conversation().ask(Image.new("RGB", (20, 10)), "what?"))
    assert inputs.tokens.count(544) == 36


def test_hugging_face_folders_are_saved_as_native_ones(fixtures: Path, tmp_path: Path) -> None:
    theirs = load(fixtures / "hf" / "checkpoints" / "llava-llama", dtype=torch.float16)
    save(theirs.model, theirs.tokenizer, tmp_path / "native")
    ours = load(tmp_path / "native", dtype=torch.float16)
    assert_same_weights(ours.model, theirs.model)
    assert ours.config == theirs.config


def test_mixed_types_become_that_of_the_embeddings(fixtures: Path) -> None:
    model = load_model(fixtures / "hf" / "converted" / "v15-mlp", device="meta")
    assert {weight.dtype for weight in model.parameters()} == {torch.float16}


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json cannot be used"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (lambda folder: shutil.rmtree(folder), "is neither a known model nor a folder|there is no folder"),
    ],
)
def test_a_missing_piece_is_named(damage: Callable[[Path], None], sentence: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(ValueError, match=sentence):
        load(folder)


def test_a_tokenizer_larger_than_the_model_is_refused(
    model: Llava, tokenizer: Tokenizer, folder: Path, tmp_path: Path
) -> None:
    language = model.config.language.model_copy(update={"vocab_size": 100})
    small: LlavaConfig = model.config.model_copy(update={"language": language})
    save(Llava(small), tokenizer, tmp_path / "small")
    with pytest.raises(CheckpointError, match="knows 264 tokens, but the model only 100"):
        load(tmp_path / "small")


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'poket' is neither a known model nor a folder; did you mean 'pocket'\?"):
        load("poket")


def test_the_file_says_what_it_is(folder: Path) -> None:
    data = json.loads((folder / "config.json").read_text())
    assert (data["format"], data["version"]) == ("llavakit", 1)
