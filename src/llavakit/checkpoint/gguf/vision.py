"""The other half of a GGUF model, llama.cpp's `mmproj` file: the tower up to the layer LLaVA reads, and the projector.

It stays in 16 bits whatever the language model is in, and vectors and positions in 32, as llama.cpp's own files do.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from gguf import GGMLQuantizationType as Type

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.gguf.file import Entry, Value, values
from llavakit.checkpoint.reader import StoredTensor, Tensors
from llavakit.checkpoint.rename import rename_back
from llavakit.checkpoint.tables import GGUF_VISION
from llavakit.config import CLIP_MEAN, LlavaConfig

ARCH = "clip"

_TRAINED = {"square": "on their middle", "stretch": "to see them pulled into shape"}


def metadata(config: LlavaConfig) -> dict[str, Value]:
    """Raises `CheckpointError` for a tower that llama.cpp cannot read from."""
    vision = config.vision
    if vision.feature_select != "patch":
        raise CheckpointError(
            f"feature_select is {vision.feature_select!r}, and llama.cpp reads the patches alone ('patch'): this model "
            "cannot be written as GGUF"
        )
    described: dict[str, Value] = {
        "clip.has_vision_encoder": True,
        "clip.has_text_encoder": False,
        "clip.has_llava_projector": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": vision.activation != "quick_gelu",
        "clip.vision.image_size": vision.image_size,
        "clip.vision.patch_size": vision.patch_size,
        "clip.vision.embedding_length": vision.hidden_size,
        "clip.vision.feed_forward_length": vision.intermediate_size,
        "clip.vision.projection_dim": config.language.hidden_size,
        "clip.vision.block_count": vision.num_used_layers,
        "clip.vision.attention.head_count": vision.num_heads,
        "clip.vision.attention.layer_norm_epsilon": vision.layer_norm_eps,
        # Without this, the last of the blocks would be left out.
        "clip.vision.feature_layer": [vision.num_used_layers],
        "clip.vision.image_mean": list(vision.image_mean),
        "clip.vision.image_std": list(vision.image_std),
        "clip.vision.image_aspect_ratio": config.resize_mode,
        "clip.vision.mm_patch_merge_type": config.tiling.merge if config.tiling else "flat",
    }
    if config.tiling:
        described["clip.vision.image_grid_pinpoints"] = [side for size in config.tiling.pinpoints for side in size]
    return described


def remarks(config: LlavaConfig) -> list[str]:
    """Where llama.cpp will see another picture than we do, whatever the files say."""
    said = []
    if config.vision.class_token:
        said.append(
            "llama.cpp since May 2025 puts the class vector behind the patches and reads everything one place off "
            "(ggml-org/llama.cpp issue 25814): its answers about pictures are worse than ours until that is mended"
        )
    if config.tiling and config.tiling.merge != "flat":
        merge = config.tiling.merge
        said.append(f"llama.cpp lays tiles one behind the other, where this model was trained with merge {merge!r}")
    if config.resize_mode in _TRAINED:
        said.append(f"llama.cpp pads pictures to a square, where this model was trained {_TRAINED[config.resize_mode]}")
    if config.resize_mode == "pad" and config.vision.image_mean != CLIP_MEAN:
        said.append("llama.cpp pads with the mean colour of CLIP, where this model was trained with another")
    if config.tokens.image_start is not None:
        said.append(
            "llama.cpp puts no tokens around a picture, where this model was trained with them: the prompt has to"
        )
    return said


def entries(config: LlavaConfig, tensors: Tensors) -> list[Entry]:
    """The tensors by llama.cpp's names."""
    ours = {name: tensor for name, tensor in tensors.items() if not name.startswith(("language.", "projector."))}
    return [*(_entry(name, tensor) for name, tensor in ours.items()), *_projector(config, tensors)]


def _entry(name: str, tensor: StoredTensor) -> Entry:
    theirs = rename_back(name, GGUF_VISION)
    assert theirs, name
    is_wide = len(tensor.shape) == 1 or theirs == "v.position_embd.weight"
    return Entry(theirs, tensor.shape, Type.F32 if is_wide else Type.F16, partial(values, tensor))


def _projector(config: LlavaConfig, tensors: Tensors) -> list[Entry]:
    """Two matrices with a GELU between; llama.cpp always applies it, and always adds biases.

    So a single matrix is written twice, once negated, and the second layer takes the difference:
    gelu(x) - gelu(-x) = x, with the tanh of llama.cpp's GELU as with the error function.
    """
    dim = config.language.hidden_size
    first, second = tensors["projector.fc1.weight"], tensors.get("projector.fc2.weight")
    weights = {"mm.0": (first.shape, partial(values, first))}
    if second is None:
        weights["mm.0"] = ((2 * dim, first.shape[1]), lambda: _and_negated(values(first)))
        weights["mm.2"] = ((dim, 2 * dim), lambda: _and_negated(np.eye(dim, dtype=np.float32)).T)
    else:
        weights["mm.2"] = (second.shape, partial(values, second))
    found = []
    for (name, (shape, read)), layer in zip(weights.items(), ("fc1", "fc2"), strict=True):
        found.append(Entry(f"{name}.weight", shape, Type.F16, read))
        found.append(Entry(f"{name}.bias", shape[:1], Type.F32, partial(_bias, tensors, layer, shape[0])))
    return found


def _bias(tensors: Tensors, layer: str, size: int) -> np.ndarray:
    bias = tensors.get(f"projector.{layer}.bias")
    if bias is None:
        return np.zeros(size, np.float32)
    return values(bias) if bias.shape == (size,) else _and_negated(values(bias))


def _and_negated(weight: np.ndarray) -> np.ndarray:
    return np.concatenate((weight, -weight))
