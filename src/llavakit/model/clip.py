"""CLIP (Radford et al. 2021), the school of the vision tower: pictures matched with captions.

Beside it every patch is matched with the words for what is seen there, as in RegionCLIP (Zhong et al. 2022): matching
whole pictures needs only a summary of each, and LLaVA reads the patches.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from llavakit.config import ClipConfig
from llavakit.model.language import LanguageModel
from llavakit.model.vision import VisionTower

FIRST_LOGIT_SCALE = math.log(1 / 0.07)
MAX_LOGIT_SCALE = math.log(100.0)  # CLIP clips its temperature here


class Clip(nn.Module):
    """A vision tower with all its layers, and a text tower."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        vision = config.vision
        self.vision = VisionTower(vision, num_layers=vision.num_layers)
        self.post_layernorm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)
        self.visual_projection = nn.Linear(vision.hidden_size, config.embed_dim, bias=False)
        self.patch_projection = nn.Linear(vision.hidden_size, config.embed_dim, bias=False)
        self.text = LanguageModel(config.text)
        self.text_projection = nn.Linear(config.text.hidden_size, config.embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(FIRST_LOGIT_SCALE))
        self.patch_logit_scale = nn.Parameter(torch.tensor(FIRST_LOGIT_SCALE))

    def embed_pictures(self, states: list[Float[Tensor, "views seq width"]]) -> Float[Tensor, "views embed"]:
        """A unit vector for each picture, from the class position of the last layer of `vision.hidden_states`."""
        return F.normalize(self.visual_projection(self.post_layernorm(states[-1][:, 0])).float(), dim=-1)

    def embed_patches(self, states: list[Float[Tensor, "views seq width"]]) -> Float[Tensor, "views patches embed"]:
        """A unit vector for each patch, from the very layer that LLaVA reads."""
        features = self.vision.select(states)[:, -self.config.vision.num_patches :]
        return F.normalize(self.patch_projection(features).float(), dim=-1)

    def embed_texts(
        self, tokens: Int[Tensor, "texts seq"], lengths: Int[Tensor, " texts"]
    ) -> Float[Tensor, "texts embed"]:
        """A unit vector for each text, from its last token, which has seen all the others."""
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        hidden = self.text(self.text.embed(tokens), positions)
        last = hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]
        return F.normalize(self.text_projection(last).float(), dim=-1)


def sharpness(logit_scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """What likenesses are multiplied by before they are compared."""
    return logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
