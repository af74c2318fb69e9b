"""Folders made to hurt: refused in one sentence before anything large is made, in a process that could not make it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.pickles import convert, unpickler
from llavakit.checkpoint.reader import Reader

LIMIT = 400 << 20  # bytes beyond what Python and PyTorch take
SECONDS = 60  # of computing, for all of them

# What `load` does, for one folder after the other, with no more memory than LIMIT.
CHILD = """
import json, resource, sys
from pathlib import Path
from llavakit.checkpoint.load import load
load(sys.argv[1])
held = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (held + int(sys.argv[2]), held + int(sys.argv[2])))
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[3]), int(sys.argv[3])))
for folder in sorted(Path(sys.argv[4]).iterdir()):
    try:
        load(folder)
        said = "nothing"
    except ValueError as error:
        said = f"{type(error).__name__}: {error}"
    except BaseException as error:
        said = f"!!! {type(error).__name__}: {error}"
    print(json.dumps([folder.name, said]), flush=True)
"""

Change = Callable[[Path], None]


def change_config(**changes: Any) -> Change:
    """New values in config.json; `language__num_layers` is num_layers in the section language."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        for path, value in changes.items():
            *sections, key = path.split("__")
            place = config
            for section in sections:
                place = place.setdefault(section, {}) or {}
            place[key] = value
        (folder / "config.json").write_text(json.dumps(config))

    return change


def replace_config(config: dict[str, Any]) -> Change:
    return lambda folder: (folder / "config.json").write_text(json.dumps(config)) and None


def header_of(length: int) -> Change:
    """A header that is there, all spaces, and takes no room on the disk."""

    def change(folder: Path) -> None:
        with (folder / "model.safetensors").open("wb") as file:
            file.write(length.to_bytes(8, "little"))
            file.truncate(length + 1000)

    return change


def enlarge(name: str, size: int) -> Change:
    return lambda folder: os.truncate(folder / name, size)


def write(name: str, content: bytes) -> Change:
    def change(folder: Path) -> None:
        for other in folder.glob("tokenizer.*" if name.startswith("tokenizer") else name):
            other.unlink()
        (folder / name).write_bytes(content)

    return change


def give_id(id: int) -> Change:
    def change(folder: Path) -> None:
        spec = json.loads((folder / "tokenizer.json").read_text())
        spec["model"]["vocab"]["zz"] = id
        (folder / "tokenizer.json").write_text(json.dumps(spec))

    return change


HF = {"model_type": "llava_next", "text_config": {}, "vision_config": {}}
MANY = [[28, 28]] * 100_000
BOMBS: dict[str, tuple[Change, str]] = {
    "header-300-mb": (header_of(300 << 20), "has a header of 314,572,800 bytes, and at most 4,194,304 are read"),
    "header-90-mb": (header_of(90 << 20), "has a header of 94,371,840 bytes"),
    "header-beyond": (write("model.safetensors", b"\xff" * 7 + b"\x7f" + b"{}"), "and 2 are there"),
    "layers": (change_config(language__num_layers=10**6), "num_layers is 1,000,000, and at most 1,024 are read"),
    "layers-tower": (change_config(vision__num_layers=10**6), "num_layers is 1,000,000"),
    "layers-hf": (replace_config(HF | {"text_config": {"num_hidden_layers": 10**6}}), "num_layers is 1,000,000"),
    "layers-plausible": (change_config(language__num_layers=1000), "layers"),
    "vocabulary": (change_config(language__vocab_size=10**12), "vocab_size is 1,000,000,000,000, and at most"),
    "vocabulary-hf": (replace_config(HF | {"text_config": {"vocab_size": 10**12}}), "vocab_size is 1,000,000,000,000"),
    "width": (change_config(language__hidden_size=10**9), "hidden_size is 1,000,000,000, and at most"),
    "width-plausible": (change_config(language__hidden_size=1 << 20), "of another shape than the configuration says"),
    "picture": (change_config(vision__image_size=14 * 10**8), "image_size is 1,400,000,000, and at most 4,096"),
    "pinpoints": (
        change_config(tiling={"pinpoints": MANY}, resize_mode="anyres"),
        "tiling.pinpoints is [[28, 28], [28, 28]",
    ),
    "pinpoints-million": (change_config(tiling={"pinpoints": MANY * 10}), "and at most 4,194,304 of such a file"),
    "pinpoints-hf": (replace_config(HF | {"image_grid_pinpoints": MANY}), "should be a list of at most 1,024 pairs"),
    "pinpoints-range": (
        replace_config(HF | {"image_grid_pinpoints": "(1x1),...,(99999999x99999999)"}),
        "should be a list of at most 1,024 pairs",
    ),
    "canvas": (
        change_config(tiling={"pinpoints": [[28 * 10**6, 28 * 10**6]]}, resize_mode="anyres"),
        "are canvases of more than 67,108,864 pixels",
    ),
    "nested": (write("config.json", b'{"a":' + b"[" * 10**6), "is not readable as JSON"),
    "config-50-gb": (enlarge("config.json", 50 << 30), "has 53,687,091,200 bytes, and at most"),
    "tokenizer-50-gb": (enlarge("tokenizer.json", 50 << 30), "has 53,687,091,200 bytes"),
    "tokenizer-nested": (write("tokenizer.json", b"[" * 10**6), "cannot be used"),
    "tokenizer-lists": (write("tokenizer.json", b"[" + b"[],"  * 10**6 + b"[]]"), "cannot be used"),
    "tokenizer-ids": (give_id(3_000_000_000), "has 3,000,000,001 ids"),
    "sentencepiece-length": (write("tokenizer.model", b"\x0a\xff\xff\xff\xff\x7f" + bytes(99)), "bytes announced"),
    "sentencepiece-empty": (write("tokenizer.model", b""), "has no pieces"),
}  # fmt: skip


@pytest.fixture(scope="module")
def said(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each of them brought about, by name."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is limited as Linux does it")
    root = tmp_path_factory.mktemp("bombs")
    for name, (change, _) in BOMBS.items():
        shutil.copytree(model_folder, root / name)
        change(root / name)
    command = [sys.executable, "-c", CHILD, model_folder, str(LIMIT), str(SECONDS), root]
    done = subprocess.run(command, capture_output=True, text=True)
    return dict(json.loads(line) for line in done.stdout.splitlines()) | {"": done.stderr[-500:]}


@pytest.mark.parametrize("name", BOMBS)
def test_a_folder_made_to_hurt(name: str, said: dict[str, str]) -> None:
    assert name in said, said
    assert said[name].startswith("CheckpointError: ") and BOMBS[name][1] in said[name]
    assert said[name].isprintable()


class Call:
    """Unpickles to the call of a function."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call[0], self.call[1:]


def pickled(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    """A file as torch.save writes it, around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", bytes(64))
    return path


def endless() -> bytes:
    """Pairs of pairs, sixty deep, as the key of a dictionary: to hash it takes years."""
    deeper = b"".join(b"h%ch%c\x86q%c" % (level, level, level + 1) for level in range(60))
    return b"\x80\x02}(K\x01K\x02\x86q\x00" + deeper + b"K\x01u."


def test_a_pickle_that_runs_code(tmp_path: Path) -> None:
    content = pickle.dumps({"a": Call(os.system, f"touch {tmp_path / 'ran'}")}, 2)
    pickled(tmp_path / "pytorch_model.bin", content)
    with pytest.raises(CheckpointError, match=r"it asks for (posix|nt)\.system, and tensors alone are read"):
        Reader(unpickler(tmp_path)).weights(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_that_never_ends(tmp_path: Path) -> None:
    bomb = pickled(tmp_path / "pytorch_model.bin", endless())
    with pytest.raises(CheckpointError, match="is not read after 3 s, far longer than its size explains"):
        unpickler(tmp_path, spare_seconds=3)(bomb)


def test_nothing_is_imported_from_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("open('ran', 'w')")
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    monkeypatch.chdir(tmp_path)
    assert unpickler(tmp_path)(Path("pytorch_model.bin")).is_file() and not Path("ran").exists()


def test_a_compressed_archive(tmp_path: Path) -> None:
    bomb = pickled(tmp_path / "a.bin", pickle.dumps(bytes(10**8)), zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10**6
    with pytest.raises(ValueError, match="compressed archive, which PyTorch does not write"):
        convert(bomb, tmp_path / "goal")


@pytest.mark.parametrize(
    "found, reason",
    [
        ({"a": torch.zeros(1).expand(10**13)}, "a has 40,000,000,000,000 bytes, more than are stored of it"),
        ({"a": torch.ones(2).to_sparse()}, "'a' is no plain tensor with a name"),
        ({3: torch.ones(2)}, "3 is no plain tensor with a name"),
        ([torch.ones(2)], "something else than named tensors"),
    ],
)
def test_what_is_no_file_of_weights(found: object, reason: str, tmp_path: Path) -> None:
    torch.save(found, tmp_path / "a.bin")
    with pytest.raises(ValueError, match=reason):
        convert(tmp_path / "a.bin", tmp_path / "goal")
    assert not (tmp_path / "goal").exists()


@pytest.mark.parametrize("kept", [0, 1, 50, 200, -30])
def test_a_pickle_cut_off(kept: int, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(99)}, tmp_path / "a.bin")
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.bin").read_bytes()[:kept])
    with pytest.raises(ValueError, match="it is damaged or no such file"):
        convert(tmp_path / "a.bin", tmp_path / "goal")


@pytest.mark.parametrize("mark, at", [(b"PK\x01\x02", 2), (b"PK\x06\x07", 16)])
def test_an_archive_with_a_broken_list_of_its_parts(mark: bytes, at: int, tmp_path: Path) -> None:
    """The mark of an entry, and the number of disks it is said to lie on."""
    torch.save({"a": torch.ones(99)}, tmp_path / "a.bin")
    content = bytearray((tmp_path / "a.bin").read_bytes())
    content[content.index(mark) + at] = 7
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(ValueError, match="it is damaged or no such file"):
        convert(tmp_path / "a.bin", tmp_path / "goal")
