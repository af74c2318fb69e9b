"""CLIP (Radford et al. 2021), the school of the vision tower: pictures matched with captions.

Beside the match stands a small decoder that writes the caption out of the very features LLaVA will read, as in CoCa
(Yu et al. 2022): matching alone needs only a summary of a picture, writing needs to know what stands where.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from llavakit.config import ClipConfig, ProjectorConfig
from llavakit.model.language import LanguageModel
from llavakit.model.projector import Projector
from llavakit.model.vision import VisionTower

MAX_LOGIT_SCALE = math.log(100.0)  # CLIP clips its temperature here


class Clip(nn.Module):
    """A vision tower with all its layers, a text tower, and a captioner on the tower's feature layer."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        vision = config.vision
        self.vision = VisionTower(vision, num_layers=vision.num_layers)
        self.post_layernorm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)
        self.visual_projection = nn.Linear(vision.hidden_size, config.embed_dim, bias=False)
        self.text = LanguageModel(config.text)
        self.text_projection = nn.Linear(config.text.hidden_size, config.embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.projector = Projector(ProjectorConfig(), in_dim=vision.hidden_size, out_dim=config.captioner.hidden_size)
        self.captioner = LanguageModel(config.captioner)

    def embed_pictures(self, states: list[Float[Tensor, "views seq width"]]) -> Float[Tensor, "views embed"]:
        """A unit vector for each picture, from the class position of the last layer of `vision.hidden_states`."""
        return F.normalize(self.visual_projection(self.post_layernorm(states[-1][:, 0])).float(), dim=-1)

    def embed_texts(
        self, tokens: Int[Tensor, "texts seq"], lengths: Int[Tensor, " texts"]
    ) -> Float[Tensor, "texts embed"]:
        """A unit vector for each text, from its last token, which has seen all the others."""
        hidden = self.text(self.text.embed(tokens), _positions(tokens))
        last = hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]
        return F.normalize(self.text_projection(last).float(), dim=-1)

    def caption(
        self, states: list[Float[Tensor, "views places width"]], tokens: Int[Tensor, "views seq"]
    ) -> Float[Tensor, "views seq dim"]:
        """The captioner's hidden states at the caption's tokens, after it has seen the picture's features."""
        features = self.projector(self.vision.select(states))
        embeds = torch.cat((features, self.captioner.embed(tokens).to(features.dtype)), dim=1)
        return self.captioner(embeds, _positions(embeds))[:, features.shape[1] :]


def _positions(tokens: Tensor) -> Int[Tensor, "batch seq"]:
    return torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
