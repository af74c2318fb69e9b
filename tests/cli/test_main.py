"""How the command as a whole begins and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from llavakit import __version__
from llavakit.cli.main import app, sentence

LLAVA = [sys.executable, "-m", "llavakit"]


def test_version(llava: Callable) -> None:
    assert llava("--version").out == f"llavakit {__version__}\n"


def test_help_lists_every_command(llava: Callable) -> None:
    text = llava("--help").out
    for command in get_command(app).commands:
        assert f"\n  {command} " in text
    assert "..." not in text.partition("Commands:")[2], "a first sentence too long for its line"
    assert llava().code == 2  # nothing to do is wrong usage; it prints the same help


def test_a_closed_pipe_is_no_error(model_folder: Path, picture: Path) -> None:
    command = [*LLAVA, "chat", str(picture), "--model", str(model_folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as talk:
        assert talk.stdout
        talk.stdout.close()
        talk.stdout = None
        _, err = talk.communicate(b"Hello.\nHello.\n")
    assert b"Traceback" not in err and b"Exception" not in err and b"Broken" not in err, err
    assert talk.returncode != 0


def test_ctrl_c_leaves_with_130(model_folder: Path) -> None:
    command = [*LLAVA, "chat", "--model", str(model_folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as talk:
        assert talk.stderr
        assert any(b"/help" in line for line in talk.stderr)  # it is there, and waits for a line
        talk.send_signal(signal.SIGINT)
        if any(b"Ctrl-C again leaves" in line for line in talk.stderr):
            talk.send_signal(signal.SIGINT)
        _, err = talk.communicate()
    assert talk.returncode == 130 and b"Traceback" not in err


def test_ctrl_c_before_anything_began(tmp_path: Path) -> None:
    """While the command is still being imported: here, by an interrupt that its first import sends."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run([*LLAVA, "--help"], env=environment, capture_output=True, text=True)
    assert done.returncode == 130 and not done.stderr and not done.stdout


@pytest.mark.parametrize("command", [("show", ""), ("doctor", " "), ("chat", "-m", ""), ("parity", "pocket", "")])
def test_an_empty_name_is_wrong_usage(command: tuple[str, ...], llava: Callable) -> None:
    run = llava(*command)
    assert run.code == 2 and "it is empty" in run.err and not run.out


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("It is broken."), "It is broken."),
        (FileNotFoundError(2, "No such file or directory", "x.json"), "x.json: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError(), "ValueError"),
    ],
)
def test_sentences(error: Exception, told: str) -> None:
    assert sentence(error) == told
