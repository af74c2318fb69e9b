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


_VIEW = {"feature_layer", "feature_select"}  # how LLaVA reads a tower; the rest is the tower's own


def built_as(vision: VisionConfig, *, may_be_cut: bool = False) -> str | None:
    """The name of the published tower that is built alike, however LLaVA reads it; None if there is none.

    `may_be_cut`: also where the layers that LLaVA never reads are cut off.
    """
    own = vision.model_dump(exclude=_VIEW)
    for name, tower in KNOWN.items():
        if may_be_cut and _is_as_long(vision.num_layers, tower):
            tower = tower.model_copy(update={"num_layers": vision.num_layers})
        if tower.model_dump(exclude=_VIEW) == own:
            return name
    return None


def recognise(tensors: Tensors) -> VisionConfig | None:
    """The published tower whose shapes these are, by our names; None if it is none of them.

    Layers behind the one that LLaVA reads may be absent: the original takes SigLIP's last one off before it trains.
    """
    layers = len({name.split(".")[2] for name in tensors if name.startswith("vision.layers.")})
    alike = (tower for tower in KNOWN.values() if _is_as_long(layers, tower) and _shapes_of(tower) == _shapes(tensors))
    return next(alike, None)


def _is_as_long(num_layers: int, tower: VisionConfig) -> bool:
    return tower.num_used_layers <= num_layers <= tower.num_layers


def _shapes(tensors: Tensors) -> list[tuple[int, ...] | None]:
    names = ("embeddings.patch_embedding", "embeddings.position_embedding", "layers.0.mlp.fc1")
    found = [tensors.get(f"vision.{name}.weight") for name in names]
    return [tensor and tensor.shape for tensor in found]


def _shapes_of(tower: VisionConfig) -> list[tuple[int, ...]]:
    patch = (tower.hidden_size, 3, tower.patch_size, tower.patch_size)
    return [patch, (tower.num_positions, tower.hidden_size), (tower.intermediate_size, tower.hidden_size)]
