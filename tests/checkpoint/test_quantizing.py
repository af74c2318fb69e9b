"""A checkpoint made small and read again: law 5 for packed matrices, and a sentence where it cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.contents import Parts, read_contents
from llavakit.checkpoint.doctor import examine
from llavakit.checkpoint.exporting import export_checkpoint
from llavakit.checkpoint.importing import import_checkpoint
from llavakit.checkpoint.load import load
from llavakit.checkpoint.quantizing import quantize_checkpoint
from llavakit.checkpoint.save import save
from llavakit.kernels.packed import dequantize
from llavakit.processing.conversation import Conversation
from llavakit.quantize.apply import bytes_in, quantize_model, scheme_of
from llavakit.quantize.calibrate import recorded
from llavakit.quantize.linear import PackedMatrix
from llavakit.quantize.schemes import SCHEMES

WEIGHTS = "model.safetensors"


@pytest.fixture(params=SCHEMES)
def small(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Path:
    quantize_checkpoint(folder, tmp_path / "small", scheme=request.param)
    return tmp_path / "small"


@pytest.fixture
def int4(folder: Path, tmp_path: Path) -> Path:
    quantize_checkpoint(folder, tmp_path / "int4", scheme="int4-g32")
    return tmp_path / "int4"


def test_from_file_to_file_is_as_in_memory(folder: Path, small: Path) -> None:
    loaded = load(small)
    scheme = scheme_of(loaded.model)
    assert json.loads((small / "config.json").read_text())["quantization"] == {"scheme": scheme}
    expected = quantize_model(load(folder).model, SCHEMES[scheme]).state_dict()
    found = loaded.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not loaded.model.training


def test_loaded_and_saved_is_the_same_to_the_byte(small: Path, tmp_path: Path) -> None:
    loaded = load(small)
    save(loaded.model, loaded.tokenizer, tmp_path / "again")
    for name in ("config.json", WEIGHTS):
        assert (tmp_path / "again" / name).read_bytes() == (small / name).read_bytes()


def test_packed_matrices_lie_where_kernels_want_them(small: Path) -> None:
    places = [part for part in load(small).model.modules() if isinstance(part, PackedMatrix)]
    assert places and all(part.packed.data_ptr() % 64 == 0 for part in places)


def test_what_was_done_is_told(folder: Path, tmp_path: Path) -> None:
    loaded = load(folder)
    inputs = loaded.processor(Conversation().ask(Image.new("RGB", (14, 14), "red"), "cat"))
    assert inputs.pixels is not None
    with recorded(loaded.model, SCHEMES["int4-g32"]) as seen, torch.inference_mode():
        loaded.model.language(torch.randn(1, 20, 8), torch.arange(20)[None])
    shares: list[float] = []
    done = quantize_checkpoint(
        folder, tmp_path / "out", scheme="int4-g32", inputs=seen, watch=lambda share: shares.append(share)
    )
    assert shares == sorted(shares) and shares[-1] == 1
    assert done.before == sum(weight.nbytes for weight in loaded.model.parameters())
    assert done.after == (tmp_path / "out" / WEIGHTS).stat().st_size
    exact = {name.removesuffix(".weight") for name in loaded.model.state_dict()}
    assert done.errors.keys() <= exact and 0 < done.language_error < 0.2
    assert all(error < 0.01 for name, error in done.errors.items() if not name.startswith("language.layers."))


def test_size_is_as_foretold(folder: Path, int4: Path) -> None:
    foretold = bytes_in(load(folder).model.half(), SCHEMES["int4-g32"])
    stored = sum(tensor.nbytes for name, tensor in load_file(int4 / WEIGHTS).items() if "packed" in name)
    floats = sum(tensor.nbytes for name, tensor in load_file(int4 / WEIGHTS).items() if "packed" not in name)
    assert stored + floats // 2 == foretold  # here what stays as it is has 32 bits


@pytest.mark.parametrize("to", ["hf", "original", "gguf"])
def test_an_export_holds_what_the_codes_stand_for(to: str, int4: Path, tmp_path: Path) -> None:
    told = export_checkpoint(int4, tmp_path / "out", to=to)
    assert told[0].startswith("its weights were int4-g32 and are written as the plain numbers")
    if to == "gguf":
        return
    contents = read_contents(tmp_path / "out")
    layer = load(int4).model.language.layers[0].mlp.up_proj
    assert torch.equal(contents.tensors["language.layers.0.mlp.up_proj.weight"].read(), dequantize(layer.matrix))


def test_doctor_tells_the_scheme_and_finds_what_is_broken(int4: Path) -> None:
    diagnosis = examine(int4, with_weights=True)
    assert diagnosis.usable and diagnosis.treated_as["scheme"].startswith("int4-g32: language model int4")
    assert not any("number formats" in finding.says for finding in diagnosis.findings)
    tensors = load_file(int4 / WEIGHTS)
    tensors["language.layers.0.mlp.up_proj.packed"][-64:] = 255  # scales that are no numbers
    save_file(tensors, int4 / WEIGHTS)
    assert any("infinite numbers or none" in finding.says for finding in examine(int4, with_weights=True).findings)


def test_a_file_cut_short(int4: Path) -> None:
    content = (int4 / WEIGHTS).read_bytes()
    (int4 / WEIGHTS).write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="is damaged, truncated or no safetensors file"):
        load(int4)


def test_another_scheme_than_the_configuration_says(int4: Path) -> None:
    config = json.loads((int4 / "config.json").read_text())
    for entry, sentence in (
        ({"scheme": "int8"}, "of another shape than the configuration says: language.layers.0"),
        ({"scheme": "int9"}, "quantization: there is no scheme 'int9'; did you mean 'int8'?"),
        ({}, "quantization is {}: it has to hold the name of a scheme"),
        (None, "missing: vision.layers.0.self_attn.q_proj.weight"),
    ):
        (int4 / "config.json").write_text(json.dumps(config | {"quantization": entry}))
        with pytest.raises(CheckpointError, match=sentence.replace("{", r"\{").replace("?", r"\?")):
            load(int4)


def test_floats_where_packed_bytes_should_be(int4: Path) -> None:
    tensors = load_file(int4 / WEIGHTS)
    name = "language.layers.0.mlp.up_proj.packed"
    tensors[name] = tensors[name].float()
    save_file(tensors, int4 / WEIGHTS)
    with pytest.raises(CheckpointError, match="not packed, but numbers of their own: .*up_proj.packed"):
        load(int4)


def test_a_matrix_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["language.layers.1.self_attn.q_proj.weight"][0, 0] = torch.nan
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="q_proj.weight cannot be quantised: it holds numbers that are infinite"):
        quantize_checkpoint(folder, tmp_path / "out", scheme="int8")
    assert not (tmp_path / "out").exists()


def test_what_is_refused(folder: Path, int4: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is quantised already \(int4-g32\): give the model it was made from"):
        quantize_checkpoint(int4, tmp_path / "out", scheme="int8")
    with pytest.raises(CheckpointError, match="is the model itself"):
        quantize_checkpoint(folder, folder, scheme="int8")
    with pytest.raises(ValueError, match="there is no scheme 'int5'"):
        quantize_checkpoint(folder, tmp_path / "out", scheme="int5")
    with pytest.raises(CheckpointError, match="native and quantised .* nothing to import"):
        import_checkpoint(int4, tmp_path / "out")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="--base .* is quantised"):
        read_contents(tmp_path / "adapter", Parts(base=int4))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.png").touch()
    with pytest.raises(CheckpointError, match="would delete photo.png"):
        quantize_checkpoint(folder, tmp_path / "full", scheme="int8")


def test_only_float32_beside_the_packed_matrices(int4: Path) -> None:
    assert load(int4, dtype=torch.float32).model.language.norm.weight.dtype == torch.float32
    with pytest.raises(CheckpointError, match="is quantised, and computes in float32 beside: leave out the other"):
        load(int4, dtype=torch.bfloat16)


def test_an_earlier_one_is_replaced(folder: Path, int4: Path) -> None:
    shutil.copytree(int4, int4.with_name("before"))
    quantize_checkpoint(folder, int4, scheme="int8")
    assert scheme_of(load(int4).model) == "int8" and scheme_of(load(int4.with_name("before")).model) == "int4-g32"
