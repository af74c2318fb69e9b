"""The doctor tells what the code that loads finds: usable is what loads, and every fault is named."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.main import get_command

from llavakit.checkpoint import CheckpointError, describe, doctor, reader
from llavakit.checkpoint.contents import Contents, Parts
from llavakit.checkpoint.doctor import Diagnosis, examine
from llavakit.checkpoint.findings import Seen
from llavakit.checkpoint.load import load
from llavakit.cli.main import app
from llavakit.config import LlavaConfig, SpecialTokens, VisionConfig

WEIGHTS = "model.safetensors"
Change = Callable[[Path], None]


def wrong(diagnosis: Diagnosis) -> str:
    return "\n".join(
        " ".join((finding.says, *finding.names, finding.do))
        for finding in diagnosis.findings
        if finding.severity == "wrong"
    )


def test_nothing_is_wrong_with_what_we_saved(folder: Path) -> None:
    diagnosis = examine(folder, with_weights=True)
    assert diagnosis.usable and not diagnosis.findings
    assert diagnosis.what == "a native llavakit model"
    assert diagnosis.treated_as["variant"] == "as LLaVA-1.5: projector mlp2x_gelu, resize mode square"
    assert diagnosis.treated_as["tokenizer"] == "tokenizer.json"
    assert diagnosis.treated_as["context"] == "32 tokens"


def with_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return apply


def with_config(change: Callable[[dict[str, Any]], Any]) -> Change:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def with_bytes(name: str, change: Callable[[bytes], bytes]) -> Change:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return apply


NORM = "language.norm.weight"
FAULTS: dict[str, tuple[Change, str]] = {
    "a key is missing": (with_tensors(lambda t: t.pop(NORM)), f"1 tensor missing {NORM}"),
    "a key is too many": (with_tensors(lambda t: t.update(odd=torch.ones(2))), "1 tensor not used odd"),
    "another shape": (
        with_tensors(lambda t: t.update({NORM: torch.ones(9)})),
        f"{NORM} [9] instead of [8]",
    ),
    "whole numbers": (
        with_tensors(lambda t: t.update({NORM: torch.ones(8, dtype=torch.int64)})),
        f"not floating-point numbers {NORM} (I64)",
    ),
    "cut off": (with_bytes(WEIGHTS, lambda b: b[:-3]), "damaged, truncated or no safetensors file"),
    "empty": (with_bytes(WEIGHTS, lambda b: b""), "get this file again"),
    "a pointer": (
        with_bytes(WEIGHTS, lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "run git lfs pull",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "has no weights"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "a broken tokenizer": (with_bytes("tokenizer.json", lambda b: b"{}"), "tokenizer.json cannot be used"),
    "no JSON": (with_bytes("config.json", lambda b: b"{"), "not readable as JSON"),
    "an unknown key": (with_config(lambda c: c.update(resize_mod="pad")), "did you mean 'resize_mode'"),
    "a thousand layers": (
        with_config(lambda c: c["language"].update(num_layers=1000)),
        "the language model 1,000 layers, but there are only 62 tensors",
    ),
    "a thousand layers of tower": (
        with_config(lambda c: c["vision"].update(num_layers=1000, feature_layer=1)),
        "the vision tower 1,000 layers",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named(fault: str, folder: Path) -> None:
    change, says = FAULTS[fault]
    change(folder)
    diagnosis = examine(folder)
    assert not diagnosis.usable
    assert says in wrong(diagnosis)


def test_what_nobody_thought_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "tokenizer_of", lambda *_: {}["surprise"])
    assert "reading it failed with KeyError: 'surprise'" in wrong(examine(folder))


def test_a_folder_of_oddities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").mkdir()
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "other.safetensors").mkdir()
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
    said = wrong(examine(tmp_path))
    for name in ("config.json", "other.safetensors"):
        assert f"{tmp_path / name} is a folder where a file should be" in said
    for name in ("model.safetensors", "loop.safetensors"):
        assert f"{tmp_path / name} cannot be read: " in said

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "Permission denied" in wrong(examine(tmp_path))


def test_all_names_are_listed_and_not_only_the_first(folder: Path) -> None:
    with_tensors(lambda tensors: [tensors.pop(name) for name in list(tensors) if "language.layers" in name])(folder)
    [missing] = [finding for finding in examine(folder).findings if "missing" in finding.says]
    assert missing.says == "18 tensors missing" and len(missing.names) == 18


def test_weights_are_read_only_when_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tensors(lambda tensors: (tensors[NORM].fill_(torch.nan), tensors["language.embed_tokens.weight"].zero_()))(
        folder
    )
    opened = reader._open_safetensors

    def unreadable(path: Path) -> reader.Tensors:
        def read() -> torch.Tensor:
            raise AssertionError("a tensor was read")

        return {
            name: reader.StoredTensor(name, tensor.shape, tensor.dtype, read) for name, tensor in opened(path).items()
        }

    with monkeypatch.context() as patched:
        patched.setattr(reader, "_open_safetensors", unreadable)
        assert examine(folder).usable
    diagnosis = examine(folder, with_weights=True)
    assert not diagnosis.usable
    assert "infinite numbers or none at all in 1 tensor language.norm.weight (8 of 8)" in wrong(diagnosis)
    [unusual] = [finding for finding in diagnosis.findings if finding.severity == "unusual"]
    assert unusual.names == ("language.embed_tokens.weight",)


def test_shards(fixtures: Path, tmp_path: Path) -> None:
    """Every damaged shard is named, a missing one, and one the index does not know."""
    checkpoints = fixtures / "checkpoints"
    folder = Path(shutil.copytree(checkpoints / "v16-anyres-vicuna", tmp_path / "shards"))
    parts = Parts(vision_tower=checkpoints / "openai" / "clip-tiny-patch14-56-c")
    assert examine(folder, parts).usable
    shards = sorted(folder.glob("*.safetensors"))
    shutil.copy(shards[0], folder / "model-old.safetensors")
    assert ("model-old.safetensors",) in [finding.names for finding in examine(folder, parts).findings]
    for shard in shards[:2]:
        shard.write_bytes(shard.read_bytes()[:-1])
    damaged = {name for finding in examine(folder, parts).findings for name in finding.names}
    assert damaged >= {shard.name for shard in shards[:2]}
    shards[0].unlink()
    assert f"names {shards[0].name}, but that file is missing" in wrong(examine(folder, parts))


def test_pickles_are_never_opened(fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr("subprocess.run", None)
    for name in ("v1-linear", "v15-mlp", "projector-only", "lora"):
        checkpoints = fixtures / "checkpoints"
        parts = Parts(checkpoints / "openai" / "clip-tiny-patch14-84-b", checkpoints / "vicuna-tiny")
        diagnosis = examine(
            checkpoints / name, parts if name in ("projector-only", "lora") else Parts(parts.vision_tower)
        )
        assert not diagnosis.usable
        assert "--allow-pickle" in wrong(diagnosis)


WHAT = {
    "v15-mlp": "an original LLaVA (model_type 'llava_llama')",
    "projector-only": "a projector of the original's stage 1",
    "lora": "a LoRA adapter of the original's code",
    "vicuna-tiny": "a language model alone (model_type 'llama')",
    "openai/clip-tiny-patch14-56-a": "a vision tower (model_type 'clip')",
    "openai": "a folder without a configuration",
    "nowhere": "no folder",
    "v15-mlp/config.json": "a file, not a folder",
}


@pytest.mark.parametrize("name", WHAT)
def test_what_a_folder_is_though_it_cannot_be_used(name: str, fixtures: Path) -> None:
    diagnosis = examine(fixtures / "checkpoints" / name)
    assert diagnosis.what == WHAT[name]
    assert not diagnosis.usable and bool(diagnosis.treated_as) == ("original" in diagnosis.what)


LACKING = {  # what has to be given besides the pickles that have to be allowed, and what its configuration says of it
    "v1-linear": (("a vision tower ('openai/clip-tiny-patch14-56-a')",), "as LLaVA v1: projector linear"),
    "v15-mlp": (("a vision tower ('openai/clip-tiny-patch14-84-b')",), "as LLaVA-1.5: projector mlp2x_gelu"),
    "projector-only": (("a vision tower ('openai/clip-tiny-patch14-84-b')", "made from ('vicuna-tiny')"), "as LLaVA"),
    "lora": (("a vision tower ('openai/clip-tiny-patch14-84-b')", "made from ('vicuna-tiny')"), "as LLaVA-1.5"),
    "v0-delta": (("a vision tower ('openai/clip-tiny-patch14-56-a')", "the model it was made from"), "as LLaVA v1"),
}


@pytest.mark.parametrize("name", LACKING)
def test_all_that_is_lacking_is_told_at_once(name: str, fixtures: Path, tmp_path: Path) -> None:
    lacking, variant = LACKING[name]
    checkpoints = fixtures / "checkpoints"
    diagnosis = examine(checkpoints / name)
    [note] = [finding for finding in diagnosis.findings if finding.says.startswith("it lacks")]
    assert all(part in note.says for part in lacking) and ("--base BASE" in note.do) == (len(lacking) == 2)
    assert diagnosis.treated_as["variant"].startswith(variant)
    assert diagnosis.treated_as["template"] and diagnosis.treated_as["context"].endswith(" tokens")
    tower = checkpoints / "openai" / f"clip-tiny-patch14-{'84-b' if '84-b' in note.says else '56-a'}"
    parts = Parts(tower, checkpoints / "vicuna-tiny" if len(lacking) == 2 else None)
    [note] = [note for note in examine(checkpoints / name, parts).findings if note.do.startswith("to take it in: ")]
    assert note.says == "all that it needs is here" and note.do.endswith(" --allow-pickle")
    command = shlex.split(note.do.removeprefix("to take it in: "))
    command[command.index("NEW")] = str(tmp_path / "new")
    get_command(app)(command[1:], standalone_mode=False)
    made = examine(tmp_path / "new").treated_as
    for row in ("variant", "template", "context"):  # what was foretold is what came out
        assert made[row] == diagnosis.treated_as[row]


def test_where_the_tower_is_from(fixtures: Path, tmp_path: Path) -> None:
    tower = fixtures / "checkpoints/openai/clip-tiny-patch14-56-c"
    parts = Parts(vision_tower=tower)
    inside = Path(shutil.copytree(fixtures / "checkpoints/v16-anyres-vicuna", tmp_path / "inside"))
    assert examine(inside, parts).treated_as["vision tower"] == "inside"
    tensors: dict[str, torch.Tensor] = {}
    for shard in inside.glob("*.safetensors*"):
        tensors |= load_file(shard) if shard.suffix == ".safetensors" else {}
        shard.unlink()
    save_file({name: tensor for name, tensor in tensors.items() if "vision_tower" not in name}, inside / WEIGHTS)
    assert examine(inside, parts).treated_as["vision tower"] == f"from {tower}"


def test_a_published_tower_is_named_by_its_shape() -> None:
    known = "openai/clip-vit-large-patch14-336"
    config = LlavaConfig(vision=VisionConfig(image_size=336, feature_layer=-1), tokens=SpecialTokens(image=31999))
    contents = Contents(config, "llavakit", {})
    assert describe._tower(Seen(Path("nowhere"), contents=contents)) == f"inside, of the shape of {known}"


def test_what_is_meant_for_an_option_is_told(fixtures: Path) -> None:
    for name, option in (("vicuna-tiny", "--base"), ("openai/clip-tiny-patch14-84-d", "--vision-tower")):
        folder = fixtures / "checkpoints" / name
        assert f"give it as {option} to a checkpoint that needs one" in wrong(examine(folder))
        with pytest.raises(CheckpointError, match=f"give it as {option}"):
            load(folder)


def test_what_is_for_llama_cpp(tmp_path: Path) -> None:
    (tmp_path / "language.gguf").touch()
    diagnosis = examine(tmp_path)
    assert diagnosis.what == "an export for llama.cpp" and not diagnosis.usable
    with pytest.raises(CheckpointError, match="an export for llama.cpp, which is not read here"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"\xff{}", b"{"])
def test_a_configuration_that_is_there_but_broken(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    assert examine(folder).what == "a folder with a config.json that cannot be read"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([2**40, 1e400, -0.5]) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def check(folder: Path) -> None:
    """No exception, and the same judgement as the loader's."""
    diagnosis = examine(folder)
    try:
        load(folder)
    except Exception:
        assert not diagnosis.usable
    else:
        assert diagnosis.usable, wrong(diagnosis)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.parametrize("source", ["folder", "llava-llama", "llava-next-mistral"])
def test_a_changed_configuration(source: str, data: st.DataObject, request: pytest.FixtureRequest) -> None:
    whole = request.getfixturevalue("folder")
    if source != "folder":
        hf = request.getfixturevalue("fixtures") / "hf" / "checkpoints" / source
        whole = whole.with_name(source)
        shutil.copytree(hf, whole, dirs_exist_ok=True)
    file = data.draw(st.sampled_from([path for path in sorted(whole.glob("*.json")) if "tokenizer" not in path.name]))
    before = file.read_text()
    content = json.loads(before)
    at, keys = content, list(content)
    key = data.draw(st.sampled_from(keys))
    if isinstance(content[key], dict) and content[key]:
        at = content[key]
        key = data.draw(st.sampled_from(list(at)))
    if data.draw(st.booleans()):
        del at[key]
    else:
        at[key] = data.draw(JSON)
    try:
        file.write_text(json.dumps(content))
        check(whole)
    finally:
        file.write_text(before)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_changed_bytes(folder: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(folder.iterdir())))
    before = file.read_bytes()
    at = data.draw(st.integers(0, min(len(before) - 1, 4000)))
    try:
        file.write_bytes(before[:at] + data.draw(st.binary(max_size=4)) + before[at + data.draw(st.integers(0, 9)) :])
        check(folder)
    finally:
        file.write_bytes(before)
