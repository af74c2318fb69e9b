"""The layers of docs/architecture.md hold, as .importlinter states them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

# The module a package is imported as, where that is not the package's own name.
IMPORTED_AS = {"pyyaml": "yaml", "pillow": "PIL"}
# torch brings it along where there is CUDA, and nowhere else: who uses it is imported late, where there is a card.
WITH_CUDA, LATE = {"triton", "cuda"}, {"triton.runtime", "cuda.bindings", "llavakit.engine.gpu_language"}
SOURCES = sorted((Path(__file__).parents[2] / "src" / "llavakit").rglob("*.py"))


def test_import_contracts_hold(root: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_imported_is_declared(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    packages = [re.split(r"[<>=\[;]", requirement)[0].lower() for requirement in project["dependencies"]]
    declared = {IMPORTED_AS.get(package, package) for package in packages} | {"llavakit"} | WITH_CUDA
    imported = {(path.name, name) for path in SOURCES for name in _imported_packages(path)}
    foreign = {(path, name) for path, name in imported if name not in sys.stdlib_module_names}
    assert {name for _, name in foreign} <= declared, sorted(pair for pair in foreign if pair[1] not in declared)


def test_no_import_hides_in_a_function() -> None:
    """Only the commands put off their heavy imports, and the engine what needs a card; others would hide a cycle."""
    late = [
        f"{path}:{node.lineno}"
        for path in SOURCES
        if path.parent.name != "cli"
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", None) not in LATE
    ]
    assert not late, late


def _imported_packages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]
