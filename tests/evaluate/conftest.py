"""A tiny random model on disk, and a small data set about two drawings."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from llavakit.checkpoint.save import save
from llavakit.config import LlavaConfig
from llavakit.model import Llava
from llavakit.processing.tokenizer import train_tokenizer

ONE_WORD = "\nAnswer the question using a single word or phrase."
TEXTS = ["a red circle and a blue square", "What colour is the circle?", "Yes, the circle is red. ASSISTANT: USER:"]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native checkpoint of random weights with room for a hundred-odd tokens."""
    tokenizer = train_tokenizer(TEXTS, vocab_size=300)
    vision = {"image_size": 28, "patch_size": 14, "hidden_size": 16, "intermediate_size": 32}
    language = {"vocab_size": tokenizer.size, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    config = LlavaConfig.parse(
        {
            "vision": vision | {"num_layers": 2, "num_heads": 2},
            "language": language | {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "max_positions": 320},
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


def record(number: int, rounds: list[tuple[str, str, str, str | list[str]]]) -> dict[str, Any]:
    """A record of (kind, question, answer in full, expected) rounds about picture `number`."""
    turns = []
    for k, (_, question, reference, _) in enumerate(rounds):
        turns.append({"from": "human", "value": f"<image>\n{question}" if k == 0 else question})
        turns.append({"from": "gpt", "value": reference})
    return {
        "id": f"sample-{number}",
        "image": f"images/{number}.png",
        "conversations": turns,
        "kinds": [kind for kind, *_ in rounds],
        "answers": [expected for *_, expected in rounds],
    }


RECORDS = [
    record(
        0,
        [
            ("existence", f"Is there a circle?{ONE_WORD}", "Yes", "yes"),
            ("talk", "Thanks", "You are welcome!", ""),
            ("colour", "What color is the circle?", "The circle is red.", "red"),
        ],
    ),
    record(1, [("detail", "Describe the picture.", "A blue square on a white background.", ["square"])])
    | {"held_out": ["pair"], "unseen_wording": [True]},
    record(2, [("count", f"How many circles are there?{ONE_WORD}", "0", "0")]),
]


@pytest.fixture
def records() -> list[dict[str, Any]]:
    """The small data set, to be changed at will."""
    return copy.deepcopy(RECORDS)


@pytest.fixture
def write_data(tmp_path: Path) -> Callable[..., Path]:
    """Writes records, by default those above, and their pictures; returns the folder."""

    def write(records: object = RECORDS, name: str = "instruct-heldout.json") -> Path:
        folder = tmp_path / "data"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for number in range(3):
            image = Image.new("RGB", (60, 40), "white")
            ImageDraw.Draw(image).ellipse((10, 5, 20 + 10 * number, 35), fill="red")
            image.save(folder / "images" / f"{number}.png")
        (folder / name).write_text(json.dumps(records))
        return folder

    return write
