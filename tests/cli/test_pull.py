"""`llava list` and `llava rm`, and a name that was not pulled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from llavakit.checkpoint.contents import NO_PARTS, Parts
from llavakit.checkpoint.load import companions, locate
from llavakit.hub import download
from llavakit.processing.templates import TEMPLATES


@pytest.fixture
def pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> Path:
    """A cache that holds llava-1.5-7b, in truth the tiny model."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cache = tmp_path / "models--llava-hf--llava-1.5-7b-hf"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("c" * 40)
    (cache / "snapshots" / ("c" * 40)).symlink_to(model_folder)
    return cache


def test_a_pulled_model_goes_by_name_and_by_id(llava: Callable, pulled: Path) -> None:
    assert locate("llava-1.5-7b") == locate("llava-hf/llava-1.5-7b-hf") == pulled / "snapshots" / ("c" * 40)
    assert llava("show", "llava-1.5-7b").code == 0


def test_a_folder_goes_before_the_hub(pulled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llava-1.5-7b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("llava-1.5-7b") == Path("llava-1.5-7b")


def test_nothing_is_pulled_unasked(llava: Callable, pulled: Path) -> None:
    run = llava("show", "llava-1.5-13b")
    assert run.code == 1 and "has not been pulled: llava pull llava-1.5-13b" in run.err


def test_offline_says_where_it_looked(llava: Callable, tmp_path: Path, pulled: Path) -> None:
    assert llava("pull", "llava-1.5-7b", "--offline").code == 0
    run = llava("pull", "llava-1.5-13b", "--offline")
    cache = tmp_path / "models--llava-hf--llava-1.5-13b-hf"
    assert run.code == 1 and run.err == (
        f"llava: llava-1.5-13b is not here: nothing of it is in {cache}; "
        "llava pull llava-1.5-13b, without --offline, gets it\n"
    )
    run = llava("pull", "llava-1.5-7b@v2", "--offline")
    assert run.code == 1 and "is not here at revision 'v2'" in run.err
    run = llava("pull", "nonsense", "--offline")
    assert run.code == 1 and "'nonsense' is neither a known model nor owner/repo" in run.err


def test_what_a_known_model_needs_is_found_where_it_was_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="model lmsys/vicuna-7b-v1.5 has not been pulled|clip-vit-large-patch14-336"):
        companions("llava-v1.5-7b-lora", NO_PARTS)
    folders = {}
    for repo in ("openai/clip-vit-large-patch14-336", "lmsys/vicuna-7b-v1.5"):
        cache = tmp_path / ("models--" + repo.replace("/", "--"))
        folders[repo] = cache / "snapshots" / ("c" * 40)
        folders[repo].mkdir(parents=True)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("c" * 40)
    tower, base = folders.values()
    assert companions("llava-v1.5-7b-lora", NO_PARTS) == Parts(tower, base)
    assert companions("liuhaotian/llava-v1.5-7b", NO_PARTS) == Parts(tower)
    assert companions("llava-v1.5-7b-lora", Parts(base=tmp_path)) == Parts(tower, tmp_path)
    assert companions("llava-1.5-7b", NO_PARTS) == companions(tmp_path, NO_PARTS) == NO_PARTS


def test_with_a_model_comes_what_it_needs(llava: Callable, monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> None:
    asked: list[str] = []

    def pull(name: str, *_: object, **__: object) -> Path:
        asked.append(name)
        return model_folder

    monkeypatch.setattr(download, "pull", pull)
    assert llava("pull", "llava-v1.5-7b-lora").code == 0
    assert asked == ["llava-v1.5-7b-lora", "openai/clip-vit-large-patch14-336", "lmsys/vicuna-7b-v1.5"]


def test_list(llava: Callable, pulled: Path) -> None:
    rows = {row["name"]: row for row in json.loads(llava("list", "--json").out)}
    assert rows["llava-1.5-7b"]["format"] == "llava-hf"
    assert rows["llava-1.5-7b"]["folder"] and rows["pocket"]["folder"] and not rows["llava-1.5-13b"]["folder"]
    assert "not pulled" in llava("list").out
    assert rows["llava-1.5-7b"]["licence"] == "Llama 2 Community" and "not stated" in llava("list").out


def test_list_of_templates(llava: Callable) -> None:
    names = llava("list", "--templates").out.split()
    assert "vicuna_v1" in names and json.loads(llava("list", "--templates", "--json").out) == names == sorted(TEMPLATES)
    run = llava("chat", "--template", "zzz")
    assert run.code == 1 and run.err == "llava: There is no template 'zzz': llava list --templates shows them all.\n"


def test_rm_asks(llava: Callable, pulled: Path, model_folder: Path) -> None:
    assert llava("rm", "llava-1.5-7b", stdin=b"n\n").code == 1 and pulled.is_dir()
    run = llava("rm", "llava-1.5-7b", "--yes")
    assert run.code == 0 and "freed" in run.out and not pulled.exists() and (model_folder / "config.json").is_file()
    assert llava("rm", model_folder, "--yes").code == 1 and model_folder.is_dir()


def test_the_environment_is_respected(tmp_path: Path) -> None:
    settings = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "llavakit", "pull", "a/b"]
    run = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
    assert run.returncode == 1 and "HF_HUB_OFFLINE is set" in run.stderr
    settings["HF_HUB_OFFLINE"] = "0"
    run = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
    assert run.returncode == 1 and "http://127.0.0.1:9 cannot be reached" in run.stderr and "Trace" not in run.stderr
