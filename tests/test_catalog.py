"""Names of models, and where they lead."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llavakit import catalog


def test_a_known_name_leads_into_the_package() -> None:
    try:
        folder = catalog.resolve("pocket")
    except ValueError as error:
        assert "the model pocket is not part of this installation" in str(error)
    else:
        assert folder == Path(catalog.__file__).parent / "pocket"


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert catalog.resolve("mine") == Path("mine")
    assert catalog.resolve(tmp_path / "mine") == tmp_path / "mine"


def test_a_dotted_path_escapes_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pocket").mkdir()
    monkeypatch.chdir(tmp_path)
    assert catalog.resolve("./pocket").resolve() == (tmp_path / "pocket").resolve()
    assert catalog.resolve(Path("pocket")).resolve() == (tmp_path / "pocket").resolve()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("poket", r"'poket' is neither a known model nor a folder; did you mean 'pocket'\?"),
        ("gpt", "^'gpt' is neither a known model nor a folder; llava list shows the known ones$"),
        ("runs/mine", "there is no folder runs/mine"),
        ("", "neither a known model"),
    ],
)
def test_what_is_neither_is_refused(name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        catalog.resolve(name)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").touch()
    with pytest.raises(ValueError, match=r"m\.safetensors is a file; a model is a folder"):
        catalog.resolve(tmp_path / "m.safetensors")


def test_every_model_has_a_source() -> None:
    assert all(entry.source and entry.about for entry in catalog.MODELS.values())
    assert all(bool(entry.folder) != bool(entry.hub) for entry in catalog.MODELS.values())
    assert next(iter(catalog.MODELS)) == "pocket"


def test_no_model_is_there_twice() -> None:
    ids = [entry.hub for entry in catalog.MODELS.values() if entry.hub]
    assert len(ids) == len(set(ids))
    assert all(catalog.entry_of(f"{hub}@main") is catalog.entry_of(hub) for hub in ids)
    assert catalog.entry_of("nobody/nothing") is None


def test_what_is_not_in_a_model_is_named() -> None:
    whole, lora = catalog.MODELS["llava-v1.5-7b"], catalog.MODELS["llava-v1.5-7b-lora"]
    assert (whole.needs_tower, whole.needs_base) == ("openai/clip-vit-large-patch14-336", "")
    assert (lora.needs_tower, lora.needs_base) == (whole.needs_tower, "lmsys/vicuna-7b-v1.5")
    for name in ("llava-1.5-7b", "llava-v1.6-vicuna-7b", "llava-onevision-7b-ov"):
        assert not catalog.MODELS[name].needs_tower and not catalog.MODELS[name].needs_base


def test_the_table_needs_no_torch() -> None:
    code = "import sys, llavakit.catalog; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
