"""The published vision towers, for checkpoints that hold a tower's weights but not its configuration."""

from __future__ import annotations

from llavakit.checkpoint.reader import Tensors
from llavakit.config import SIGLIP_MEAN, SIGLIP_STD, VisionConfig

KNOWN = {
    "openai/clip-vit-large-patch14": VisionConfig(image_size=224),
    "openai/clip-vit-large-patch14-336": VisionConfig(image_size=336),
    "google/siglip-so400m-patch14-384": VisionConfig(
        image_size=384,
        hidden_size=1152,
        intermediate_size=4304,
        num_layers=27,
        activation="gelu_tanh",
        layer_norm_eps=1e-6,
        class_token=False,
        pre_norm=False,
        patch_bias=True,
        image_mean=SIGLIP_MEAN,
        image_std=SIGLIP_STD,
    ),
}


def recognise(tensors: Tensors) -> VisionConfig | None:
    """The published tower whose shapes these are, by our names; None if it is none of them.

    Layers behind the one that LLaVA reads may be absent: the original takes SigLIP's last one off before it trains.
    """
    layers = len({name.split(".")[2] for name in tensors if name.startswith("vision.layers.")})
    return next(
        (
            tower
            for tower in KNOWN.values()
            if tower.num_used_layers <= layers <= tower.num_layers and _shapes_of(tower) == _shapes(tensors)
        ),
        None,
    )


def _shapes(tensors: Tensors) -> list[tuple[int, ...] | None]:
    names = ("embeddings.patch_embedding", "embeddings.position_embedding", "layers.0.mlp.fc1")
    found = [tensors.get(f"vision.{name}.weight") for name in names]
    return [tensor and tensor.shape for tensor in found]


def _shapes_of(tower: VisionConfig) -> list[tuple[int, ...]]:
    patch = (tower.hidden_size, 3, tower.patch_size, tower.patch_size)
    return [patch, (tower.num_positions, tower.hidden_size), (tower.intermediate_size, tower.hidden_size)]
