"""A whole checkpoint, tiny and random, and a way to run the command line in this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from llavakit.checkpoint.save import save
from llavakit.cli.main import main
from llavakit.config import LlavaConfig
from llavakit.model import Llava
from llavakit.processing.tokenizer import train_tokenizer

TEXTS = ["a red circle and a blue square", "What colour is the circle?", "The circle is red. ASSISTANT: USER:"]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native checkpoint of random weights, large enough that its greedy answers differ between prompts."""
    tokenizer = train_tokenizer(TEXTS, vocab_size=300)
    vision = {"image_size": 28, "patch_size": 14, "hidden_size": 16, "intermediate_size": 32}
    language = {"vocab_size": tokenizer.size, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    config = LlavaConfig.parse(
        {
            "vision": vision | {"num_layers": 2, "num_heads": 2},
            "language": language | {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "max_positions": 256},
            "tokens": {"pad": 0, "bos": 1, "eos": 2, "image": 3},
        }
    )
    torch.manual_seed(0)
    model = Llava(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(model, tokenizer, folder, dtype=torch.float16)
    return folder


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawing of a red circle, in a folder with a blank in its name."""
    image = Image.new("RGB", (60, 40), "white")
    ImageDraw.Draw(image).ellipse((10, 5, 40, 35), fill="red")
    path = tmp_path_factory.mktemp("my pictures") / "it's red.png"
    image.save(path)
    return path


@dataclass(frozen=True)
class Run:
    """What a run of the command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def llava(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """`llava(*arguments, stdin=b"")` runs the command line as the shell would."""

    def run(*arguments: object, stdin: bytes = b"") -> Run:
        monkeypatch.setattr(sys, "argv", ["llava", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        code = 0
        try:
            main()
        except SystemExit as done:
            code = int(done.code or 0)
        return Run(code, *capsys.readouterr())

    return run
