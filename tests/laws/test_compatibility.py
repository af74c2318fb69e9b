"""docs/compatibility.md is what was measured, within its tolerances, and leaves out no golden folder."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Templates of which the original masks no sample rightly, so that nothing is left to be equal: the tests say why.
NEVER_RIGHT = ("chatml", "llava_v0", "mpt")


@pytest.fixture(scope="module")
def maker(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_compatibility", root / "docs" / "make_compatibility.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(maker: ModuleType) -> dict[str, Any]:
    return json.loads(maker.RESULTS.read_text(encoding="utf-8"))


def test_the_page_is_the_results(maker: ModuleType, results: dict[str, Any]) -> None:
    assert maker.PAGE.read_text(encoding="utf-8") == maker.page(results), "run `make compatibility`"


def test_every_difference_is_allowed(results: dict[str, Any]) -> None:
    for row in results["rows"]:
        assert row["cases"] > 0
        if "tolerance" in row and not row["relative"]:
            assert row["largest"] <= row["tolerance"], row


def test_every_row_has_its_test(root: Path, results: dict[str, Any]) -> None:
    for row in results["rows"]:
        file, _, name = row["test"].partition("::")
        assert f"def {name}(" in (root / file).read_text(encoding="utf-8"), row["test"]


def test_every_golden_folder_is_there(fixtures: Path, results: dict[str, Any]) -> None:
    stages: dict[str, set[str]] = {}
    for row in results["rows"]:
        stages.setdefault(row["subject"], set()).add(row["stage"])

    def names(folder: str, pattern: str = "*") -> list[str]:
        found = sorted(path.stem for path in (fixtures / folder).glob(pattern))
        assert found
        return found

    whole = {"projected features", "number of tokens", "ids of the prompt", "logits", "greedy ids"}
    for name in names("cases", "*.safetensors"):
        assert stages[f"original, {name}"] >= whole
    for name in names("hf/checkpoints"):
        assert stages[f"llava-hf, {name}"] >= {"projected features", "logits"}
    for name in names("hf/converted"):
        assert stages[f"llava-hf, converted {name}"] >= {"projected features", "logits"}
    for name in json.loads((fixtures / "anyres" / "anyres.json").read_text())["tables"]:
        assert "tokens" in stages[f"anyres table {name}"]
    for name, template in json.loads((fixtures / "templates" / "templates.json").read_text())["templates"].items():
        if all(isinstance(prompt, str) for prompt in template["prompts"].values()):
            assert stages[f"template {name}"] == {"prompt"}
    for name in set(names("labels")) - {"conversations"}:
        assert f"labels, {name}" in stages or name.startswith(NEVER_RIGHT)


def test_a_new_comparison_needs_a_table(maker: ModuleType) -> None:
    row = {"test": "tests/t.py::test", "subject": "odd, thing", "stage": "logits", "oracle": "o", "cases": 1}
    with pytest.raises(ValueError, match="compares 'odd, thing': its first word should be of original, llava-hf"):
        maker.merged([row])


def test_rows_of_one_comparison_are_put_together(maker: ModuleType) -> None:
    row = {"test": "t", "subject": "original, a", "stage": "logits", "oracle": "o", "cases": 2}
    numbers = {"tolerance": 1.0, "relative": 0.0}
    rows = [row | numbers | {"largest": 0.25}, row | {"stage": "pixels"}, row | numbers | {"largest": 0.5}]
    assert maker.merged(rows) == [row | {"stage": "pixels"}, row | numbers | {"largest": 0.5, "cases": 4}]
