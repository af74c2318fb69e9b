"""The vision tower as others want it: with the layers and the norm behind the features, which we do not keep.

They never matter, but the classes of others build as many layers as the configuration counts and end in a norm. The
layers are written as ones that change nothing: 25 MB for CLIP-L in 16 bit. Leaving them out instead, with fewer layers
and feature layer -1, would compute the same, but what reads the folder could no longer tell that this is CLIP-L, and
reading it back would give another configuration. vLLM builds only the layers up to the feature layer and skips the
others in the file; transformers and the original load all.
"""

from __future__ import annotations

import torch

from llavakit.checkpoint.reader import StoredTensor, Tensors
from llavakit.config import VisionConfig
from llavakit.model.vision import VisionLayer


def whole_tower(tensors: Tensors, vision: VisionConfig) -> Tensors:
    """The tensors of a model, by our names, with those of the tower that we leave out."""
    with torch.device("meta"):
        layer = VisionLayer(vision).state_dict()
    added = {"vision.post_layernorm.weight": (vision.hidden_size,), "vision.post_layernorm.bias": (vision.hidden_size,)}
    for index in range(vision.num_used_layers, vision.num_layers):
        added |= {f"vision.layers.{index}.{name}": tuple(weight.shape) for name, weight in layer.items()}
    return tensors | {name: _neutral(name, shape) for name, shape in added.items()}


def _neutral(name: str, shape: tuple[int, ...]) -> StoredTensor:
    """Norms that only normalise, and matrices that add nothing."""
    value = 1.0 if "norm" in name and name.endswith("weight") else 0.0
    return StoredTensor(name, shape, "F32", lambda: torch.full(shape, value))
