"""How a checkpoint of 7B opens and is imported: `python benchmarks/open_checkpoint.py FOLDER` prints one JSON.

Two checkpoints are written into FOLDER, shaped as the published llava-hf/llava-1.5-7b-hf and
liuhaotian/llava-v1.6-vicuna-7b: bf16, in shards, with values drawn once and repeated. Each is opened, imported, and
what was imported is opened too, every measurement in a process of its own; then the files are deleted. At most two
checkpoints lie there at once: 28 GB. `--layers N` makes the language model shallower where that is too much. The same
shape as `llava quantize --scheme int4-g32` writes it is opened as well, 4 GB; `--only quantized` does no more.

Memory is what Linux counts: `anonymous` is what the process itself holds, `mapped` are pages of files, which the system
can drop and read again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llavakit import catalog
from llavakit.checkpoint.importing import import_checkpoint
from llavakit.checkpoint.load import load
from llavakit.checkpoint.reader import StoredTensor
from llavakit.checkpoint.rename import rename_back
from llavakit.checkpoint.save import write_folder
from llavakit.checkpoint.tables import LLAVA_HF, ORIGINAL, Table
from llavakit.checkpoint.tokenizer_files import read_tokenizer
from llavakit.circumstances import circumstances
from llavakit.config import LlavaConfig
from llavakit.kernels.packed import pack
from llavakit.model import Llava
from llavakit.quantize.apply import make_room
from llavakit.quantize.linear import PackedMatrix
from llavakit.quantize.schemes import Grid, find_scheme

SHARD_BYTES = 5_000_000_000
BLOCK = 1 << 26
QUANTIZED, SCHEME = "quantized", "int4-g32"
LANGUAGE = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
}
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def llava_hf(layers: int) -> dict[str, Any]:
    """The config.json of llava-hf/llava-1.5-7b-hf, as sparse as it is."""
    text = LANGUAGE | {"model_type": "llama", "vocab_size": 32064, "num_hidden_layers": layers}
    tokens = {"image_token_index": 32000, "pad_token_id": 32001}
    return {"model_type": "llava", "text_config": text, "vision_feature_layer": -2, **tokens}


def original(layers: int) -> dict[str, Any]:
    """The config.json of liuhaotian/llava-v1.6-vicuna-7b, whose tower is inside."""
    return LANGUAGE | {
        "model_type": "llava",
        "architectures": ["LlavaLlamaForCausalLM"],
        "vocab_size": 32000,
        "num_hidden_layers": layers,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_hidden_size": 1024,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_patch_merge_type": "spatial_unpad",
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": PINPOINTS,
        "pad_token_id": 0,
    }


FORMATS: dict[str, tuple[Callable[[int], dict[str, Any]], Table, str]] = {
    "llava-hf": (llava_hf, LLAVA_HF, "vision_tower.vision_model"),
    "original": (original, ORIGINAL, "model.vision_tower.vision_tower.vision_model"),
}


def shapes_of(config: dict[str, Any], table: Table, tower: str) -> dict[str, list[int]]:
    """Every tensor of a published checkpoint by its foreign name, the tower's last layer and norm included."""
    tiling = {"pinpoints": PINPOINTS} if "image_grid_pinpoints" in config else None
    text = config.get("text_config", config)
    with torch.device("meta"):
        model = Llava(
            LlavaConfig.parse(
                {
                    "vision": {"feature_layer": -1},
                    "language": {"vocab_size": text["vocab_size"], "num_layers": text["num_hidden_layers"]},
                    "tiling": tiling,
                    "tokens": {"image": 32000},
                }
            )
        )
    shapes = {rename_back(name, table): list(tensor.shape) for name, tensor in model.state_dict().items()}
    return shapes | {f"{tower}.post_layernorm.{part}": [1024] for part in ("weight", "bias")}


def write_checkpoint(folder: Path, config: dict[str, Any], shapes: dict[str, list[int]]) -> int:
    """Shards, index, configuration and a tokenizer; returns the bytes of the weights."""
    folder.mkdir(parents=True)
    sizes = {name: 2 * torch.Size(shape).numel() for name, shape in shapes.items()}
    shards: list[list[str]] = [[]]
    for name in shapes:
        if sum(sizes[one] for one in shards[-1]) + sizes[name] > SHARD_BYTES:
            shards.append([])
        shards[-1].append(name)
    files = {f"model-{index:05}-of-{len(shards):05}.safetensors": names for index, names in enumerate(shards, 1)}
    for file, names in files.items():
        write_shard(folder / file, {name: shapes[name] for name in names}, sizes)
    weight_map = {name: file for file, names in files.items() for name in names}
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(catalog.resolve("pocket") / "tokenizer.json", folder)  # smaller than the vocabulary, but it fits
    return sum(sizes.values())


def write_shard(file: Path, shapes: dict[str, list[int]], sizes: dict[str, int]) -> None:
    block = (torch.randn(BLOCK // 2, generator=torch.Generator().manual_seed(0)) * 0.02).to(torch.bfloat16)
    ones = torch.ones(BLOCK // 2, dtype=torch.bfloat16)
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end := end + sizes[name]]}
    text = json.dumps(header).encode()
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name in shapes:
            # Norms lie around one: by that a whole model is told from a delta.
            values = memoryview((ones if "norm" in name else block).view(torch.uint8).numpy())
            for start in range(0, sizes[name], BLOCK):
                out.write(values[: min(BLOCK, sizes[name] - start)])


def write_quantized(folder: Path, layers: int) -> int:
    """A native folder of 7B by the scheme SCHEME, its codes drawn once and repeated; returns the weights' bytes."""
    config = LlavaConfig.parse(
        {"language": {"vocab_size": 32064, "num_layers": layers, "max_positions": 4096}, "tokens": {"pad": 32001}}
    )
    with torch.device("meta"):
        model = Llava(config)
        make_room(model, find_scheme(SCHEME))
    grids = {f"{name}.packed": part.grid for name, part in model.named_modules() if isinstance(part, PackedMatrix)}
    tensors = [_drawn(name, tensor, grids.get(name)) for name, tensor in model.state_dict().items()]
    tokenizer = read_tokenizer(catalog.resolve("pocket"), load("pocket").config.tokens)
    write_folder(folder, config, tensors, tokenizer, card="", scheme=SCHEME)
    return (folder / "model.safetensors").stat().st_size


def _drawn(name: str, like: torch.Tensor, grid: Grid | None) -> StoredTensor:
    """A tensor of this shape, made when it is written."""
    if grid is None:
        half = torch.ones if "norm" in name else torch.zeros
        return StoredTensor(name, tuple(like.shape), "F16", lambda: half(like.shape, dtype=torch.float16))

    def read() -> torch.Tensor:
        codes = torch.randint(1, 16, (16, 2 * grid.group), generator=torch.Generator().manual_seed(0))
        record = pack(codes.to(torch.uint8), torch.full((16, 2), 0.01).half(), kind=grid.kind, group=grid.group).data
        return record.repeat(len(like) // len(record))

    return StoredTensor(name, tuple(like.shape), "U8", read)


def warm(folder: Path) -> None:
    """Read every file once, so that its pages are in memory as far as there is room for them."""
    buffer = bytearray(1 << 24)
    for file in sorted(folder.iterdir()):
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass


def held() -> dict[str, int]:
    """What this process holds now, in bytes."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {words[0][:-1]: int(words[1]) * 1024 for words in lines if words and words[0].startswith(("Rss", "VmHWM"))}
    return {"anonymous": found["RssAnon"], "mapped": found["RssFile"], "resident_peak": found["VmHWM"]}


@contextmanager
def watched(peak: dict[str, int]) -> Iterator[None]:
    """Look at the process's own memory forty times a second, and keep the most there was of it."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.025):
            peak["anonymous_peak"] = max(peak.get("anonymous_peak", 0), held()["anonymous"])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def measure(what: str, folder: Path) -> dict[str, Any]:
    """One measurement, in a process that has done nothing else."""
    before, peak = held(), {"anonymous_peak": 0}
    with watched(peak):
        start, computed = time.perf_counter(), time.process_time()
        if what == "import":
            import_checkpoint(folder, folder.with_name("native"))
        else:
            model = load(folder, dtype=torch.float32 if folder.name == QUANTIZED else torch.bfloat16).model
        seconds, computed = time.perf_counter() - start, time.process_time() - computed
    after = held()
    result = {
        "seconds": round(seconds, 3),
        "processor_seconds": round(computed, 3),
        "anonymous_before": before["anonymous"],
        "anonymous_peak": max(peak["anonymous_peak"], after["anonymous"]),
        "mapped_after": after["mapped"],
        "resident_peak": after["resident_peak"],
    }
    if what == "open":
        start = time.perf_counter()
        with torch.inference_mode():
            model.language.logits(model(torch.tensor([[1]]), None, torch.tensor([[0]])))
        later = held()
        result["first_pass"] = {
            "seconds": round(time.perf_counter() - start, 3),
            "anonymous": later["anonymous"],
            "mapped": later["mapped"],
            "resident_peak": later["resident_peak"],
        }
    return result


def in_a_child(what: str, folder: Path) -> dict[str, Any]:
    warm(folder)
    command = [sys.executable, __file__, str(folder), "--measure", what]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"{folder.name}: {what}: {result}", file=sys.stderr)
    return result


def run(folder: Path, layers: int) -> dict[str, Any]:
    """Both published shapes, then the quantised one."""
    return run_published(folder, layers) | run_quantized(folder, layers)


def run_quantized(folder: Path, layers: int) -> dict[str, Any]:
    source = folder / QUANTIZED
    try:
        size = write_quantized(source, layers)
        return {QUANTIZED: {"scheme": SCHEME, "bytes": size, "open": in_a_child("open", source)}}
    finally:
        shutil.rmtree(source, ignore_errors=True)


def run_published(folder: Path, layers: int) -> dict[str, Any]:
    results = {}
    for format, (config_of, table, tower) in FORMATS.items():
        source, native = folder / format, folder / "native"
        try:
            config = config_of(layers)
            start = time.perf_counter()
            size = write_checkpoint(source, config, shapes_of(config, table, tower))
            print(f"{format}: {size:,} bytes written in {time.perf_counter() - start:.0f} s", file=sys.stderr)
            results[format] = {
                "bytes": size,
                "open": in_a_child("open", source),
                "import": in_a_child("import", source),
            }
            shutil.rmtree(source)
            results[format]["open_imported"] = in_a_child("open", native)
        finally:
            shutil.rmtree(source, ignore_errors=True)
            shutil.rmtree(native, ignore_errors=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the checkpoints are written, and deleted again")
    parser.add_argument("--layers", type=int, default=32, help="layers of the language model")
    parser.add_argument("--measure", choices=("open", "import"), help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=(QUANTIZED,), help="leave the published formats out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.measure:
        print(json.dumps(measure(given.measure, given.folder)))
        return
    results = (run_quantized if given.only else run)(given.folder, given.layers)
    print(json.dumps({"layers": given.layers, "results": results, **circumstances(torch.device("cpu"))}, indent=1))


if __name__ == "__main__":
    main()
