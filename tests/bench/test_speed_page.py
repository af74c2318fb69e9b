"""The tables of README.md and docs/speed.md: made from the command's own result, and current where there is any."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_speed", root / "docs" / "make_speed.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table(script: ModuleType, root: Path) -> None:
    result = json.loads((Path(__file__).parent / "peers_of_a_tiny_model.json").read_text())
    page = (root / "docs" / "speed.md").read_text()
    printed = script.with_tables(page, result)
    assert {mark["name"] for mark in script.MARKED.finditer(page)} == set(script.TABLES)
    assert script.with_tables(printed, result) == printed
    # 640 tokens in 1.822 s, from 0.9502 to 2.693 s.
    assert "| the prompt about it, tokens/s | 351 [238-674] | 1,034 [735-1,745] |" in printed
    assert "| to the first word about a picture, s | 1.94 [0.974-2.9] | 0.849 [0.367-1.33] |" in printed
    assert "| decode, times llama.cpp's rate | at least 1.25 | 2.21 [0.506-3.92] | reached |" in printed
    assert "openvino: tower and projector with weights of 16 bits" in printed


def test_the_pages_are_current(script: ModuleType) -> None:
    if not script.RESULTS.is_file():
        pytest.skip("make bench has not been run")
    result = json.loads(script.RESULTS.read_text())
    for file in script.PAGES:
        page = file.read_text()
        assert script.with_tables(page, result) == page, "run `make docs`"
