"""What every test stands on: shapes checked while the code runs, and the golden files where there are any."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from beartype import beartype
from jaxtyping import install_import_hook
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

    Array = Tensor | ndarray

ROOT = Path(__file__).parent.parent

# A shell lets its background jobs ignore Ctrl-C, and so would everything that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check every call of a function whose signature states shapes; leave the others as they are."""
    stated = " ".join(str(annotation) for annotation in function.__annotations__.values())
    return beartype(function) if "Tensor" in stated or "ndarray" in stated else function


# Where there is no card, kernels written for one are interpreted; the packages that read this are imported later.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Before any test imports these rooms, so that their shapes are checked in all tests.
install_import_hook(
    [
        # Not those in triton, which reads the source of its functions.
        *(
            f"llavakit.kernels.{room}"
            for room in ("graph", "halves", "packed", "threads", "twin", "gpu.decoder", "gpu.matrix")
        ),
        "llavakit.processing",
        "llavakit.model",
        "llavakit.engine",
        "llavakit.train",
        "llavakit.parity",
    ],
    f"{__name__}.check_shapes",
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


class Compared:
    """Compares our results with another implementation's, and keeps by how much they differ.

    `docs/make_compatibility.py` runs every test that takes the fixture `compared` and writes what they kept into
    docs/compatibility.md: there is one comparison, and both the test and the page stand on it.
    """

    def __init__(self, test: str) -> None:
        self.test = test
        self.rows: dict[tuple[str, str, str], dict[str, Any]] = {}

    def close(
        self, ours: Array, theirs: Array, *, subject: str, stage: str, oracle: str, atol: float, rtol: float = 0.0
    ) -> None:
        """Numbers: assert that they are within the tolerance; `subject` is what was read, `stage` where one looked."""
        import torch

        ours, theirs = torch.as_tensor(ours), torch.as_tensor(theirs)
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=rtol)
        row = self._row(subject, stage, oracle) | {"tolerance": atol, "relative": rtol}
        apart = (ours.double() - theirs.double()).abs().max().item() if ours.numel() else 0.0
        self.rows[subject, stage, oracle] = row | {"largest": max(row.get("largest", 0.0), apart)}

    def equal(self, ours: object, theirs: object, *, subject: str, stage: str, oracle: str) -> None:
        """Ids, counts, texts: assert that they are the same."""
        assert ours == theirs, (subject, stage)
        self.rows[subject, stage, oracle] = self._row(subject, stage, oracle)

    def _row(self, subject: str, stage: str, oracle: str) -> dict[str, Any]:
        row = self.rows.get((subject, stage, oracle), {"cases": 0})
        named = {"test": self.test, "subject": subject, "stage": stage, "oracle": oracle}
        return named | row | {"cases": row["cases"] + 1}


@pytest.fixture
def compared(request: pytest.FixtureRequest) -> Iterator[Compared]:
    """Where a test compares with another implementation; LLAVAKIT_COMPATIBILITY names a file to keep the results in."""
    kept = Compared(request.node.nodeid.partition("[")[0])
    yield kept
    if file := os.environ.get("LLAVAKIT_COMPATIBILITY"):
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in kept.rows.values())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m compared` selects what the page of compatibility stands on."""
    for item in items:
        if "compared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.compared)


@pytest.fixture(scope="session")
def protobuf() -> Callable[[list[tuple[int, int | float | bytes]]], bytes]:
    """Writes a message of protocol buffers from its numbered fields."""

    def varint(number: int) -> bytes:
        low, high = number & 0x7F, number >> 7
        return bytes([low | 0x80]) + varint(high) if high else bytes([low])

    def field(number: int, value: int | float | bytes) -> bytes:
        match value:
            case int():
                return varint(number << 3) + varint(value)
            case float():
                return varint(number << 3 | 5) + struct.pack("<f", value)
        return varint(number << 3 | 2) + varint(len(value)) + value

    return lambda fields: b"".join(field(number, value) for number, value in fields)


@pytest.fixture(scope="session")
def sentencepiece_file(protobuf: Callable[..., bytes]) -> Callable[..., bytes]:
    """Writes a tokenizer.model as Llama's is: from pieces as (text, score, type), with changed fields if wished."""

    def write(
        pieces: list[tuple[str, float, int]],
        *,
        trainer: dict[int, int] | None = None,
        normalizer: dict[int, int | bytes] | None = None,
    ) -> bytes:
        model = [(1, protobuf([(1, text.encode()), (2, float(score)), (3, type)])) for text, score, type in pieces]
        trainer = {3: 2, 35: 1, 40: 0, 41: 1, 42: 2, 43: 2**64 - 1} | (trainer or {})
        normalizer = {1: b"identity", 2: b"", 3: 1, 4: 0, 5: 1} | (normalizer or {})
        return protobuf([*model, (2, protobuf([*trainer.items()])), (3, protobuf([*normalizer.items()]))])

    return write


@pytest.fixture(scope="session")
def llama_pieces() -> list[tuple[str, float, int]]:
    """A vocabulary built as Llama's is and small enough to read, with pieces that could spell special tokens."""
    made = ["\u2581t", "th", "\u2581th", "\u2581the", "\u2581a", "\u2581\u2581", "</", "s>", "<0", "x0", "0A>", "<unk"]
    letters = ["\u2581", *"abcdehiklmnorstu<>/0x123456789ABCDEF:.!é"]
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    return pieces + [(text, -float(rank), 1) for rank, text in enumerate(made + letters)]


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
