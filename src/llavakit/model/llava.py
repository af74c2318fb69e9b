"""LLaVA itself (Liu et al. 2023): a tower, a projector and a language model, joined by one masked write."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llavakit.config import LlavaConfig
from llavakit.model.cache import KVCache
from llavakit.model.language import LanguageModel
from llavakit.model.projector import Projector
from llavakit.model.vision import VisionTower


@dataclass(frozen=True)
class Images:
    """The pictures of a batch in the order of their placeholders, either as pixels or as features seen before."""

    pixels: Float[Tensor, "views 3 size size"] | None = None
    features: Float[Tensor, "views features width"] | None = None


class Llava(nn.Module):
    """Images and tokens in, hidden states out."""

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionTower(config.vision)
        self.projector = Projector(
            config.projector, in_dim=config.vision.hidden_size, out_dim=config.language.hidden_size
        )
        self.language = LanguageModel(config.language)

    def encode_images(self, images: Images) -> Float[Tensor, "image_tokens dim"]:
        """One embedding for each placeholder, all pictures behind one another."""
        features = self.vision(images.pixels) if images.features is None else images.features
        return self.projector(features).flatten(0, 1)

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        images: Images | None,
        positions: Int[Tensor, "batch seq"],
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        embeds = self.language.embed(tokens)
        if images is not None:
            placeholders = tokens == self.config.tokens.image
            embeds = merge(embeds, at=placeholders, features=self.encode_images(images))
        return self.language(embeds, positions, cache)


def merge(
    embeds: Float[Tensor, "batch seq dim"],
    *,
    at: Bool[Tensor, "batch seq"],
    features: Float[Tensor, "image_tokens dim"],
) -> Float[Tensor, "batch seq dim"]:
    """Write image features over their placeholders, in reading order; raises ValueError if their numbers differ."""
    num_placeholders = int(at.sum())
    if num_placeholders != len(features):
        raise ValueError(f"{num_placeholders} image placeholders in the tokens, but {len(features)} image features")
    return embeds.masked_scatter(at[..., None], features.to(embeds.dtype))
