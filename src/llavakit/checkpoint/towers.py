"""The published vision towers, for checkpoints that hold a tower's weights but not its configuration."""

from __future__ import annotations

from llavakit.checkpoint.reader import Tensors
from llavakit.config import VisionConfig

KNOWN = {
    "openai/clip-vit-large-patch14": VisionConfig(image_size=224),
    "openai/clip-vit-large-patch14-336": VisionConfig(image_size=336),
}


def recognise(tensors: Tensors) -> VisionConfig | None:
    """The published tower whose shapes these are, by our names; None if it is none of them."""
    return next((tower for tower in KNOWN.values() if _shapes_of(tower) == _shapes(tensors)), None)


def _shapes(tensors: Tensors) -> tuple[object, ...]:
    patches = tensors.get("vision.embeddings.patch_embedding.weight")
    positions = tensors.get("vision.embeddings.position_embedding.weight")
    first = tensors.get("vision.layers.0.mlp.fc1.weight")
    layers = {name.split(".")[2] for name in tensors if name.startswith("vision.layers.")}
    return (patches and patches.shape, positions and positions.shape, first and first.shape, len(layers))


def _shapes_of(tower: VisionConfig) -> tuple[object, ...]:
    patch = (tower.hidden_size, 3, tower.patch_size, tower.patch_size)
    positions = (tower.num_patches + 1, tower.hidden_size)
    return patch, positions, (tower.intermediate_size, tower.hidden_size), tower.num_layers
