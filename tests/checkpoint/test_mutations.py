"""Folders of every format with something changed in them: read, or refused in one sentence, and never anything else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.contents import Parts, read_contents
from llavakit.checkpoint.load import tokenizer_of
from llavakit.checkpoint.pickles import convert
from llavakit.checkpoint.reader import Reader
from llavakit.checkpoint.rename import rename_back
from llavakit.checkpoint.save import save
from llavakit.checkpoint.tables import LLAVA_HF, ORIGINAL, Table
from llavakit.checkpoint.weights import fill
from llavakit.config import LlavaConfig
from llavakit.model import Llava

from .conftest import CONFIG, random_model

SECONDS = 20  # of computing, for one folder
PIPE_SECONDS = 300  # for some fifty folders, of which each takes a moment
DEEP = "deep"  # stands for what json.dumps cannot write
NASTY = (
    None, True, False, -1, 0, 1, 3, 2**31, 10**12, 10**300, -(10**18), 1.5, -0.0, float("nan"), float("inf"), "", "x",
    "(1x1),...,(99999x99999)", "\x00\x1b[31m\n", "../outside", "/etc/passwd", [], [[]], [None], [1], ["a", 2], {},
    {"a": {}}, {"content": 3}, [[336, 672]] * 3000, [0] * 20000, "é" * 5000, DEEP,
)  # fmt: skip
LANGUAGE = {
    "vocab_size": 320, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 32, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
TOWER = {
    "model_type": "clip_vision_model", "image_size": 14, "patch_size": 7, "hidden_size": 8, "intermediate_size": 12,
    "num_hidden_layers": 3, "num_attention_heads": 2,
}  # fmt: skip
HF = {
    "model_type": "llava_next", "text_config": {"model_type": "llama", **LANGUAGE}, "vision_config": TOWER,
    "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "image_token_index": 300,
    "image_grid_pinpoints": [[14, 28], [28, 28]], "tie_word_embeddings": False,
}  # fmt: skip
PREPROCESSOR = {
    "image_processor_type": "LlavaNextImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    "size": {"shortest_edge": 14}, "crop_size": {"height": 14, "width": 14}, "do_resize": True, "resample": 3,
    "rescale_factor": 1 / 255, "image_grid_pinpoints": [[14, 28], [28, 28]],
}  # fmt: skip
MM = LANGUAGE | {
    "model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"], "mm_vision_tower": "openai/clip",
    "mm_hidden_size": 8, "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch", "mm_patch_merge_type": "spatial_unpad", "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": "[[14, 28], [28, 28]]",
}  # fmt: skip
TOKENIZER = {"legacy": False, "bos_token": "<s>", "add_bos_token": True, "pad_token": {"content": "<unk>"}}
ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {"q_proj": 8}, "use_rslora": False}


@dataclass(frozen=True)
class Bench:
    """Valid folders side by side, and which of them are mutated together: the first is opened, with the others."""

    root: Path

    def parts(self, kind: str) -> Parts:
        return Parts(
            vision_tower=self.root / "tower" if kind in ("original", "projector", "lora") else None,
            base=self.root / "base" if kind in ("projector", "lora") else None,
        )


KINDS = ("native", "hf", "original", "projector", "lora")


@pytest.fixture(scope="session")
def bench(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: Any,
    sentencepiece_file: Callable[..., bytes],
    llama_pieces: Any,
) -> Bench:
    root = tmp_path_factory.mktemp("valid")
    save(random_model(CONFIG), tokenizer, root / "native")
    tensors = random_model(
        LlavaConfig.parse(
            {
                "vision": CONFIG.vision.model_dump() | {"feature_layer": -1},
                "language": CONFIG.language.model_dump() | {"vocab_size": 320},
                "tiling": {"pinpoints": [(14, 28)]},
                "resize_mode": "anyres",
                "tokens": {"image": 300},
            }
        )
    ).state_dict()
    model = sentencepiece_file([*llama_pieces])

    def write(name: str, config: object, found: dict[str, torch.Tensor], **files: object) -> None:
        folder = root / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        names = sorted(found)
        shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
        for file, listed in shards.items():
            save_file({key: found[key] for key in listed}, folder / file)
        places = {key: file for file, listed in shards.items() for key in listed}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        for file, content in files.items():
            (folder / f"{file}.json").write_text(json.dumps(content))

    def foreign(table: Table, *prefixes: str) -> dict[str, torch.Tensor]:
        return {rename_back(name, table): value for name, value in tensors.items() if name.startswith(prefixes)}

    write("hf", HF, foreign(LLAVA_HF, ""), preprocessor_config=PREPROCESSOR, generation_config={"eos_token_id": 2})
    write("original", MM, foreign(ORIGINAL, "language", "projector", "image_newline"), tokenizer_config=TOKENIZER)
    write("base", LANGUAGE | {"model_type": "llama"}, foreign(ORIGINAL, "language"), tokenizer_config=TOKENIZER)
    inside = foreign(ORIGINAL, "vision")
    alone = {key.removeprefix("model.vision_tower.vision_tower."): value for key, value in inside.items()}
    write("tower", TOWER, alone, preprocessor_config=PREPROCESSOR)
    write("projector", MM, {})
    write("lora", MM, {}, adapter_config=ADAPTER)
    for name in ("projector", "lora"):
        for file in [*(root / name).glob("model*")]:
            file.unlink()
    parts = foreign(ORIGINAL, "projector", "image_newline")
    torch.save(parts, root / "projector" / "mm_projector.bin")
    torch.save(
        {f"base_model.model.{key}": value for key, value in parts.items()}, root / "lora/non_lora_trainables.bin"
    )
    low = {"A": torch.ones(2, 8), "B": torch.ones(8, 2)}
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file({f"{module}.lora_{half}.weight": low[half] for half in low}, root / "lora/adapter_model.safetensors")
    for name in ("hf", "original", "base"):
        (root / name / "tokenizer.model").write_bytes(model)
    return Bench(root)


def open_whole(folder: Path, parts: Parts, scratch: Path) -> None:
    """All that `load` and `import` do with a folder; pickles are read here and not in a child, to save the time."""

    def unpickle(path: Path) -> Path:
        try:
            convert(path, scratch / "made.safetensors")
        except (ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: {error}") from error
        return scratch / "made.safetensors"

    contents = read_contents(folder, parts, Reader(unpickle))
    with torch.device("meta"):
        model = Llava(contents.config)
    fill(model, contents.tensors, device=torch.device("cpu"), dtype=torch.float32, source=folder)
    tokenizer_of(folder, parts, contents.config)


@pytest.mark.parametrize("kind", KINDS)
def test_unchanged_they_open(kind: str, bench: Bench, tmp_path: Path) -> None:
    open_whole(bench.root / kind, bench.parts(kind), tmp_path)


# What loading folders says, a line each, in a process that can be ended when it waits for ever.
CHILD = """
import json, sys
from pathlib import Path
from llavakit.checkpoint.card import licence_of
from llavakit.checkpoint.contents import Parts, read_contents
from llavakit.checkpoint.doctor import examine
from llavakit.checkpoint.formats import read_chat_template
from llavakit.checkpoint.load import tokenizer_of
from llavakit.checkpoint.pickles import convert
from llavakit.checkpoint.reader import Reader

def unpickle(path):
    convert(path, Path("made"))
    return Path("made")

def told(step):
    try:
        step()
    except ValueError as error:
        return str(error)
    return "nothing"

for pipe, folder, tower, base in json.load(sys.stdin):
    folder, parts = Path(folder), Parts(tower and Path(tower), base and Path(base))
    def open_whole():
        contents = read_contents(folder, parts, Reader(unpickle))
        tokenizer_of(folder, parts, contents.config)
    said = told(open_whole)
    told(lambda: read_chat_template(folder))
    examine(folder, parts)  # pickles it never opens, and so stops earlier
    licence_of(folder)
    print(json.dumps([pipe, said]), flush=True)
"""
NOT_READ = ("README.md", "base/config.json")  # by what loads
BESIDE = {  # files that the folders have not, and that would be read
    "hf": ("chat_template.jinja", "special_tokens_map.json", "added_tokens.json"),
    "original": ("generation_config.json",),
    "projector": ("mm_projector.safetensors",),
    "lora": ("non_lora_trainables.safetensors",),
}


def places_of(kind: str, bench: Bench) -> list[Path]:
    """Every file that a folder and its parts have or may have."""
    parts = bench.parts(kind)
    folders = [bench.root / kind, *filter(None, (parts.vision_tower, parts.base))]
    there = [file.relative_to(bench.root) for folder in folders for file in sorted(folder.iterdir())]
    return there + [Path(kind) / name for name in BESIDE.get(kind, ())]


def test_nobody_waits_for_a_pipe(bench: Bench, tmp_path: Path) -> None:
    """In place of every file there may be, one after the other."""
    rows = []
    for kind, place in [(each, place) for each in KINDS for place in places_of(each, bench)]:
        copy = Bench(tmp_path / str(len(rows)))
        shutil.copytree(bench.root, copy.root)
        (copy.root / place).unlink(missing_ok=True)
        os.mkfifo(copy.root / place)
        parts = copy.parts(kind)
        given = (copy.root / place, copy.root / kind, parts.vision_tower, parts.base)
        rows.append([path and str(path) for path in given])
    try:
        done = subprocess.run(
            [sys.executable, "-c", CHILD],
            input=json.dumps(rows),
            capture_output=True,
            text=True,
            timeout=PIPE_SECONDS,
            cwd=tmp_path,
        )
        lines, ending = done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        lines, ending = (error.stdout or b"").decode(), "it waits"
    said = dict(json.loads(line) for line in lines.splitlines())
    assert len(said) == len(rows), f"{rows[len(said)]}: {ending[-1000:]}"
    for pipe, loading in said.items():
        refused = f"{pipe} is a named pipe where a file should be: put the file in its place"
        assert (loading == refused) is not pipe.endswith(NOT_READ), (pipe, loading)


def change_json(text: str, draw: st.DrawFn) -> str:
    """Something in a JSON text that was valid: a value replaced, a key taken out, renamed or given twice."""
    data = json.loads(text)
    places = list(_places(data))
    holder, key = draw(st.sampled_from(places))
    how = draw(st.sampled_from(("replace", "replace", "replace", "delete", "rename", "twice")))
    nasty = draw(st.sampled_from(NASTY))
    if how == "delete":
        del holder[key]
    elif how == "rename" and isinstance(holder, dict):
        holder[str(nasty)] = holder.pop(key)
    elif how == "twice" and isinstance(holder, dict):
        holder[f"{key}\0"] = nasty
    else:
        holder[key] = nasty
    text = json.dumps(data).replace('\\u0000"', '"')
    return text.replace(f'"{DEEP}"', "[" * 3000 + "]" * 3000)


def _places(data: Any) -> Any:
    """Every place of a JSON tree where a value stands."""
    for key in data if isinstance(data, dict) else range(min(len(data), 40)):
        yield data, key
        if isinstance(data[key], dict | list):
            yield from _places(data[key])


def change_bytes(content: bytes, draw: st.DrawFn) -> bytes:
    how = draw(st.sampled_from(("cut", "flip", "flip", "insert", "empty", "begin", "double", "noise")))
    at = draw(st.integers(0, max(len(content) - 1, 0)) | st.integers(0, min(400, max(len(content) - 1, 0))))
    if how == "cut":
        return content[:at]
    if how == "flip":
        changed = bytearray(content)
        for place in (at, *draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=3))):
            changed[place : place + 1] = bytes([draw(st.integers(0, 255))])
        return bytes(changed)
    if how == "insert":
        return content[:at] + draw(st.binary(min_size=1, max_size=9)) + content[at:]
    if how == "begin":
        return draw(st.sampled_from((b"\xff\xfe", b"\xef\xbb\xbf", b"version https://git-lfs", b"\xff" * 8))) + content
    return {"empty": b"", "double": content * 2, "noise": draw(st.binary(max_size=200))}[how]


def change_header(content: bytes, draw: st.DrawFn) -> bytes:
    """What a safetensors file says of itself."""
    length = int.from_bytes(content[:8], "little")
    header = change_json(content[8 : 8 + length].decode(), draw).encode("utf-8", "replace")
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def change_files(folder: Path, draw: st.DrawFn) -> None:
    """What stands in a folder, rather than what is in a file."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    file, other = draw(st.sampled_from(files)), draw(st.sampled_from(files))
    how = draw(st.sampled_from(("gone", "folder", "itself", "dangling", "other", "swap", "pipe", "locked")))
    content, others = file.read_bytes(), other.read_bytes()
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "itself":
        file.symlink_to(file)
    elif how == "dangling":
        file.symlink_to(folder / "nothing")
    elif how == "other":
        file.symlink_to(other.name)
    elif how == "swap":
        file.write_bytes(others)
        other.write_bytes(content)
    elif how == "pipe":
        os.mkfifo(file)
    elif how == "locked":
        file.write_bytes(content)
        file.chmod(0)


def change(folder: Path, draw: st.DrawFn) -> None:
    if draw(st.integers(0, 7)) == 0:
        change_files(folder, draw)
        return
    file = draw(st.sampled_from(sorted(folder.iterdir())))
    if not file.is_file():
        return
    content = file.read_bytes()
    how = draw(st.integers(0, 3))
    if how and file.suffix == ".json":
        content = change_json(content.decode(), draw).encode("utf-8", "replace")
    elif how > 1 and file.suffix == ".safetensors":
        content = change_header(content, draw)
    else:
        content = change_bytes(content, draw)
    file.write_bytes(content)


@st.composite
def mutated(draw: st.DrawFn, bench: Bench, kind: str, scratch: Path) -> Path:
    """A copy of all folders, one of those that `kind` needs changed in one to three ways."""
    shutil.copytree(bench.root, scratch, dirs_exist_ok=True)
    parts = bench.parts(kind)
    needed = [kind, *(["tower"] if parts.vision_tower else []), *(["base"] if parts.base else [])]
    for _ in range(draw(st.integers(1, 3))):
        try:
            change(scratch / draw(st.sampled_from([kind, *needed])), draw)
        except (ValueError, KeyError, TypeError, IndexError, RecursionError, OSError):
            continue  # an earlier change left nothing that could be changed so
    return scratch / kind


def check_one(kind: str, bench: Bench, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        folder = data.draw(mutated(bench, kind, scratch))
        parts = Bench(scratch).parts(kind)
        start = time.process_time()
        try:
            open_whole(folder, parts, scratch)
        except CheckpointError as error:
            assert str(error).isprintable() and 10 < len(str(error)) < 2500
        assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_read_or_refused(kind: str, bench: Bench, data: st.DataObject) -> None:
    check_one(kind, bench, data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_read_or_refused_at_length(kind: str, bench: Bench, data: st.DataObject) -> None:
    check_one(kind, bench, data)
