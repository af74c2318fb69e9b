"""The README does what it says: its commands run, its code runs, its map is complete."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from llavakit.catalog import MODELS
from llavakit.train.recipes import RECIPES, SEQUENCES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
TRAINING = [line for line in COMMANDS if line.startswith("llava train")]
PULLED = [line for line in COMMANDS if line.startswith(("llava pull", "llava rm"))]  # need a network
MAKING = [line for line in COMMANDS if line.startswith("make")]
RUNNING = [line for line in COMMANDS if line not in TRAINING + MAKING + PULLED]


@pytest.mark.parametrize("command", RUNNING)
def test_commands_run(command: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert command.startswith("llava "), "a command of the README that no test runs"
    script = f'set -e; llava() {{ {shlex.quote(sys.executable)} -m llavakit "$@"; }}; {command}'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


@pytest.mark.parametrize("code", [block for kind, block in BLOCKS if kind == "python"])
def test_python_runs(code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_conversation_is_the_models_own() -> None:
    asked = "llava chat examples/drawing.png < examples/questions.txt".replace(
        "llava", f"{sys.executable} -m llavakit", 1
    )
    said = subprocess.run(["bash", "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert said == next(block for kind, block in BLOCKS if kind == "text").strip()


@pytest.mark.parametrize("command", TRAINING)
def test_training_names_a_recipe(command: str) -> None:
    assert command.split()[2] in {**RECIPES, **SEQUENCES}


@pytest.mark.parametrize("command", PULLED)
def test_pulling_names_a_known_model(command: str) -> None:
    assert MODELS[command.split()[2]].hub


@pytest.mark.parametrize("command", MAKING)
def test_make_knows_its_targets(command: str) -> None:
    target = command.split()[1]
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True)


def test_the_map_has_a_line_for_every_room_and_no_other() -> None:
    package = ROOT / "src" / "llavakit"
    rooms = {path.parent.name + "/" for path in package.glob("*/__init__.py")}
    files = {path.name for path in package.glob("*.py") if not path.name.startswith("_")}
    listed = set(re.findall(r"^  ([\w/.]+)", next(block for kind, block in BLOCKS if not kind), re.M))
    assert rooms | files <= listed
    gone = {name for name in listed if not (package / name).exists()}
    assert gone <= {"pocket/"}, "lines for what is not there"  # the model need not be in a checkout


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
