"""A GGUF model of given shapes with random weights, for llama.cpp: `python random_gguf.py SHAPES_JSON FOLDER`.

Two files as `llama-quantize` makes them: the language model in Q4_0 with an output head in Q6_K, and an mmproj of
tower and projector in F16. Blocks are drawn once and repeated, tensor by tensor, so that it takes no more memory than
the largest of them and no more time than the disk.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type

from llavakit.checkpoint.gguf import language, vision
from llavakit.checkpoint.rename import rename_back
from llavakit.checkpoint.tables import GGUF_LANGUAGE, GGUF_VISION
from llavakit.config import LlavaConfig
from llavakit.model import Llava

SCALE = np.frombuffer(np.float16(0.003).tobytes(), np.uint8)
SCALE_AT = {Type.Q4_0: 0, Type.Q8_0: 0, Type.Q6_K: 208}  # where in a block its scale stands
PROJECTOR = {"fc1": "mm.0", "fc2": "mm.2"}


def write(config: LlavaConfig, folder: Path) -> None:
    """Write `language.gguf` and `mmproj.gguf`, each under another name until it is whole."""
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in Llava(config).state_dict().items()}
    ours = {name: shape for name, shape in shapes.items() if name.startswith("language.")}
    _write(
        folder / "language.gguf",
        "llama",
        language.metadata(config.language) | _vocabulary(config.language.vocab_size) | {"general.file_type": 2},
        {rename_back(name, GGUF_LANGUAGE): (shape, _language_type(name, shape)) for name, shape in ours.items()},
    )
    seen = {_vision_name(name): shape for name, shape in shapes.items() if name not in ours}
    kinds = {name: Type.F32 if len(shape) == 1 or "position" in name else Type.F16 for name, shape in seen.items()}
    _write(
        folder / "mmproj.gguf",
        vision.ARCH,
        vision.metadata(config),
        {name: (shape, kinds[name]) for name, shape in seen.items()},
    )


def _language_type(name: str, shape: tuple[int, ...]) -> Type:
    if len(shape) == 1:
        return Type.F32
    if "lm_head" in name:
        return Type.Q6_K if shape[-1] % 256 == 0 else Type.Q8_0
    return Type.Q4_0


def _vision_name(name: str) -> str:
    if name.startswith("projector."):
        _, layer, kind = name.split(".")
        return f"{PROJECTOR[layer]}.{kind}"
    return rename_back(name, GGUF_VISION)


def _vocabulary(size: int) -> dict[str, Any]:
    """As many words as the shapes have, of which nobody will read one."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += [f"w{index}" for index in range(len(words), size)]
    kinds = [2, 3, 3, *[6] * 256]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words[:size],
        "tokenizer.ggml.scores": [0.0] * size,
        "tokenizer.ggml.token_type": (kinds + [1] * size)[:size],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def _write(file: Path, arch: str, metadata: dict[str, Any], tensors: dict[str, tuple[tuple[int, ...], Type]]) -> None:
    unfinished = file.with_suffix(".part")
    writer = gguf.GGUFWriter(unfinished, arch)
    for key, value in metadata.items():
        kind = gguf.GGUFValueType.get_type(value)
        # Whole numbers are unsigned in all keys that llama.cpp reads, token types apart.
        if kind == gguf.GGUFValueType.INT32:
            kind = gguf.GGUFValueType.UINT32
        (writer.add_array(key, value) if isinstance(value, list) else writer.add_key_value(key, value, kind))
    sizes = {}
    for name, (shape, kind) in tensors.items():
        stored = gguf.quant_shape_to_byte_shape(shape, kind)
        sizes[name] = int(np.prod(stored))
        writer.add_tensor_info(name, stored, np.dtype(np.uint8), sizes[name], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(0)
    for name, (_, kind) in tensors.items():
        writer.write_tensor_data(_random(random, kind, sizes[name]))
    writer.close()
    unfinished.replace(file)


def _random(random: np.random.Generator, kind: Type, size: int) -> np.ndarray:
    if kind in (Type.F32, Type.F16):
        dtype = np.float32 if kind == Type.F32 else np.float16
        count = min(size // dtype().itemsize, 1 << 20)
        block = (random.standard_normal(count) * 0.02).astype(dtype).view(np.uint8)
    else:
        block = random.integers(0, 256, (4099, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
        block[:, SCALE_AT[kind] : SCALE_AT[kind] + 2] = SCALE
    return np.resize(block.reshape(-1), size)


if __name__ == "__main__":
    write(LlavaConfig.parse(json.loads(sys.argv[1])), Path(sys.argv[2]))
