"""What is printed into docs/ is what the code prints today."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

# Rooms that one picture passes through; the walkthrough has to stop at each of their files.
WALKED = ("processing", "model", "engine", "checkpoint")
NOT_ON_THE_WAY = {"model/clip.py", "model/footprint.py", "model/empty.py"} | {
    f"checkpoint/{name}.py"
    for name in (
        *("save", "atomic", "tensors", "card", "shards", "exporting", "merging"),
        *("doctor", "describe", "findings", "known_configs", "needs"),
        *("aligned", "memory", "quantizing", "dequantizing"),
    )
}


def _script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_map_of_files_is_current(root: Path) -> None:
    page = (root / "docs" / "architecture.md").read_text()
    assert _script(root / "docs" / "make_map.py").with_map(page) == page, "run `make docs`"


def test_the_names_side_by_side_are_current(root: Path) -> None:
    page = (root / "docs" / "rosetta.md").read_text()
    assert _script(root / "docs" / "make_rosetta.py").rosetta() == page, "run `make docs`"


def test_the_figures_of_quantisation_are_current(root: Path) -> None:
    page = (root / "docs" / "quantization.md").read_text()
    assert _script(root / "docs" / "make_quantization.py").with_tables(page) == page, "run `make docs`"


def test_every_file_says_what_it_is_for(root: Path) -> None:
    listed = _script(root / "docs" / "make_map.py").file_map(root / "src" / "llavakit")
    assert not re.findall(r"^- `(.+)`: $", listed, re.M)


def test_the_walkthrough_stops_at_every_file(root: Path, model_folder: Path) -> None:
    page = _script(root / "docs" / "make_walkthrough.py").walkthrough(model_folder)
    package = root / "src" / "llavakit"
    files = {str(path.relative_to(package)) for room in WALKED for path in (package / room).glob("[!_]*.py")}
    assert not {name for name in files - NOT_ON_THE_WAY if f"`{name}`" not in page}


def test_the_walkthrough_is_current(root: Path) -> None:
    printed = _script(root / "docs" / "make_walkthrough.py").walkthrough("pocket")
    assert _without_digits((root / "docs" / "walkthrough.md").read_text()) == _without_digits(printed), (
        "run `make docs`"
    )


def _without_digits(page: str) -> str:
    """Without decimals: their last digits depend on the machine."""
    return re.sub(r"-?\d+\.\d+(e-?\d+)?", "#", page)
