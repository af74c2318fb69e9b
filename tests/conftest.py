"""What every test stands on: shapes checked while the code runs, and the golden files where there are any."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from beartype import beartype
from jaxtyping import install_import_hook
from PIL import Image, ImageDraw

ROOT = Path(__file__).parent.parent


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check every call of a function whose signature states shapes; leave the others as they are."""
    stated = " ".join(str(annotation) for annotation in function.__annotations__.values())
    return beartype(function) if "Tensor" in stated or "ndarray" in stated else function


# Before any test imports these rooms, so that their shapes are checked in all tests.
install_import_hook(
    ["llavakit.processing", "llavakit.model", "llavakit.engine", "llavakit.train"], f"{__name__}.check_shapes"
)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The golden files made by the original and the Hugging Face implementations; without them the test is skipped."""
    folder = Path(os.environ.get("LLAVAKIT_FIXTURES", ROOT.parent / "shared" / "fixtures"))
    if not folder.is_dir():
        pytest.skip(f"no golden files in {folder}; LLAVAKIT_FIXTURES names another folder")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole native checkpoint, tiny and random; its greedy answers differ between prompts."""
    # Here and not above, where it would come before the hook.
    import torch

    from llavakit.checkpoint.save import save
    from llavakit.config import LlavaConfig
    from llavakit.model import Llava
    from llavakit.processing import train_tokenizer

    texts = ["a red circle and a blue square", "What colour is the circle?", "The circle is red. ASSISTANT: USER:"]
    tokenizer = train_tokenizer(texts, vocab_size=300)
    vision = {"image_size": 28, "patch_size": 14, "hidden_size": 16, "intermediate_size": 32}
    language = {"vocab_size": tokenizer.size, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    config = LlavaConfig.parse(
        {
            "vision": vision | {"num_layers": 2, "num_heads": 2},
            "language": language | {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "max_positions": 256},
            "tokens": {"pad": 0, "bos": 1, "eos": 2, "image": 3},
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Llava(config)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(model, tokenizer, folder, dtype=torch.float16)
    return folder


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawing of a red circle, under a name that a shell would have to quote."""
    image = Image.new("RGB", (60, 40), "white")
    ImageDraw.Draw(image).ellipse((10, 5, 40, 35), fill="red")
    path = tmp_path_factory.mktemp("my pictures") / "it's red.png"
    image.save(path)
    return path
