"""LLaVA itself (Liu et al. 2023): a tower, a projector and a language model, joined by one masked write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llavakit.anyres import Size, num_views
from llavakit.config import LlavaConfig, TilingConfig
from llavakit.model.arrange import arrange
from llavakit.model.cache import Cache
from llavakit.model.drop import Drop
from llavakit.model.language import LanguageModel
from llavakit.model.projector import Projector
from llavakit.model.reduce import Fewer, condense, pool
from llavakit.model.vision import VisionTower


@dataclass(frozen=True)
class Images:
    """The pictures of a batch in the order of their placeholders, either as pixels or as features seen before.

    All views of all pictures stand behind one another. A model with tiling reads from `sizes`, (width, height) of each
    picture, which of them belong together; others need none. Pictures in one view and in tiles do not mix.
    `fewer`, where it is given, is what stands for the features before the language model.
    """

    pixels: Float[Tensor, "views 3 size size"] | None = None
    features: Float[Tensor, "views features width"] | None = None
    sizes: Sequence[Size] = ()
    fewer: Fewer | None = None


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
        self.image_newline = _newline(config.tiling, config.language.hidden_size)

    def see(self, pixels: Float[Tensor, "views 3 size size"]) -> Images:
        """The views as features, and what stands for them, where the configuration asks for fewer."""
        wanted = self.config.condensing
        if wanted and wanted.method == "attention":
            return self.seen(*self.vision.features_and_attention(pixels))
        return self.seen(self.vision(pixels))

    def seen(
        self,
        features: Float[Tensor, "views features width"],
        attention: Float[Tensor, "views features"] | None = None,
    ) -> Images:
        """The same from features; `attention`, how much each is looked at, is for the method of that name."""
        wanted = self.config.condensing
        if wanted is None:
            return Images(features=features)
        if wanted.method == "pool":
            return Images(features=features, fewer=pool(features, wanted.count))
        return Images(features=features, fewer=condense(features, attention, wanted.count))

    def encode_images(self, images: Images) -> Float[Tensor, "image_tokens dim"]:
        """One embedding for each placeholder, all pictures behind one another."""
        if images.features is None:
            images = replace(self.see(images.pixels), sizes=images.sizes)
        embeds = self.projector(images.features)
        if images.fewer is not None:
            return images.fewer.of(embeds).flatten(0, 1)
        if self.config.tiling is None:
            return embeds.flatten(0, 1)
        return self._arrange(embeds, images.sizes)

    def _arrange(
        self, embeds: Float[Tensor, "views features dim"], sizes: Sequence[Size]
    ) -> Float[Tensor, "image_tokens dim"]:
        # In tiles a picture has at least two views.
        is_whole = len(embeds) == len(sizes)
        counts = [1 if is_whole else num_views(*size, self.config) for size in sizes]
        if sum(counts) != len(embeds):
            raise ValueError(
                f"pictures of the sizes {list(sizes)} have {sum(counts)} views, but there are {len(embeds)}: "
                "Images needs the (width, height) of every picture"
            )
        pictures = zip(embeds.split(counts), sizes, strict=True)
        return torch.cat([arrange(views, size, self.config, self.image_newline) for views, size in pictures])

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        images: Images | None,
        positions: Int[Tensor, "batch seq"],
        cache: Cache | None = None,
        drop: Drop | None = None,
    ) -> Float[Tensor, "batch kept dim"]:
        """Hidden states. `positions` are those of `anyres.token_positions`, `drop` as in `LanguageModel`."""
        bias = None
        if images is None:
            embeds = self.language.embed(tokens)
        else:
            if images.features is None:
                images = replace(self.see(images.pixels), sizes=images.sizes)
            placeholders = tokens == self.config.tokens.image
            embeds = self.language.embed(tokens.masked_fill(placeholders, 0))  # not every vocabulary has a word for it
            embeds = merge(embeds, at=placeholders, features=self.encode_images(images))
            if images.fewer is not None:
                placed = positions[placeholders] + images.fewer.places.flatten()
                positions = positions.masked_scatter(placeholders, placed)
                bias = _spread(images.fewer.bias, placeholders)
        return self.language(embeds, positions, cache, bias, drop)


def _spread(
    bias: Float[Tensor, "views features"] | None, placeholders: Bool[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq"] | None:
    """Each at its placeholder; nothing is added to the attention to words."""
    if bias is None:
        return None
    return torch.zeros(placeholders.shape, device=placeholders.device).masked_scatter(placeholders, bias)


def _newline(tiling: TilingConfig | None, dim: int) -> nn.Parameter | None:
    """The vector that ends a row, where the merge mode has one (upstream: `image_newline`)."""
    return nn.Parameter(torch.zeros(dim)) if tiling and tiling.with_newline else None


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
