"""The vision tower: a picture cut into patches, seen by a pre-norm transformer.

CLIP's (Radford et al. 2021) and SigLIP's (Zhai et al. 2023), which differ at its entrance only.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from llavakit.config import VisionConfig
from llavakit.model.layers import ACTIVATIONS, attend


class VisionEmbeddings(nn.Module):
    """Patches, and in front of them the class vector where there is one, each with its learned position."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.zeros(width)) if config.class_token else None
        self.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=config.patch_bias)
        self.position_embedding = nn.Embedding(config.num_positions, width)

    def forward(self, pixels: Float[Tensor, "views 3 size size"]) -> Float[Tensor, "views seq width"]:
        x = rearrange(self.patch_embedding(pixels), "views width rows cols -> views (rows cols) width")
        if self.class_embedding is not None:
            x = torch.cat((self.class_embedding.expand(len(pixels), 1, -1), x), dim=1)
        return x + self.position_embedding.weight


class VisionAttention(nn.Module):
    """Every patch looks at every patch."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Float[Tensor, "views seq width"]) -> Float[Tensor, "views seq width"]:
        query, key, value = (
            rearrange(proj(x), "views seq (heads dim) -> views heads seq dim", heads=self.num_heads)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = attend(query, key, value)
        return self.out_proj(rearrange(mixed, "views heads seq dim -> views seq (heads dim)"))

    def looked_at(self, x: Float[Tensor, "views seq width"], by: slice) -> Float[Tensor, "views seq"]:
        """How much the positions `by` look at each: the mean over them and all heads, in float32."""
        query, key = (
            rearrange(proj(some), "views seq (heads dim) -> views heads seq dim", heads=self.num_heads).float()
            for proj, some in ((self.q_proj, x[:, by]), (self.k_proj, x))
        )
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        return scores.softmax(-1).mean((1, 2))


class VisionMLP(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Float[Tensor, "views seq width"]) -> Float[Tensor, "views seq width"]:
        return self.fc2(self.activation(self.fc1(x)))


class VisionLayer(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMLP(config)

    def forward(self, x: Float[Tensor, "views seq width"]) -> Float[Tensor, "views seq width"]:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class VisionTower(nn.Module):
    """Pixels in, patch features of the chosen layer out.

    Only the layers that the features depend on exist: LLaVA reads layer -2, so the last layer, the final norm and
    SigLIP's pooling can never matter and are neither stored nor computed. CLIP training asks for all layers with
    `num_layers`.
    """

    def __init__(self, config: VisionConfig, *, num_layers: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.embeddings = VisionEmbeddings(config)
        # Spelt as in CLIP's files.
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.pre_norm else None
        num_layers = config.num_used_layers if num_layers is None else num_layers
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(num_layers))

    def hidden_states(self, pixels: Float[Tensor, "views 3 size size"]) -> list[Float[Tensor, "views seq width"]]:
        """What enters the first layer, then the output of each."""
        embeddings = self.embeddings(pixels)
        states = [embeddings if self.pre_layrnorm is None else self.pre_layrnorm(embeddings)]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return states

    def select(self, states: list[Float[Tensor, "views seq width"]]) -> Float[Tensor, "views features width"]:
        """The features LLaVA reads, out of `hidden_states`."""
        features = states[self.config.num_used_layers]
        return features[:, -self.config.num_features :]

    def features_and_attention(
        self, pixels: Float[Tensor, "views 3 size size"]
    ) -> tuple[Float[Tensor, "views features width"], Float[Tensor, "views features"]]:
        """The features, and how much each is looked at, in `shares`.

        The class vector looks, in every layer; where there is none, everybody, in the layer that the features come out
        of.
        """
        states, last = self.hidden_states(pixels), self.config.num_used_layers - 1
        first, by = (0, slice(1)) if self.config.class_token else (last, slice(None))
        looked_at = [
            layer.self_attn.looked_at(layer.layer_norm1(entered), by)
            for layer, entered in zip(self.layers[first : last + 1], states[first : last + 1], strict=True)
        ]
        return self.select(states), self.shares(torch.stack(looked_at))

    def shares(self, looked_at: Float[Tensor, "layers views seq"]) -> Float[Tensor, "views features"]:
        """How much each feature is looked at, as its share in each layer, summed up over the layers."""
        features = looked_at[..., -self.config.num_features :]
        return (features / features.sum(-1, keepdim=True)).sum(0)

    def forward(self, pixels: Float[Tensor, "views 3 size size"]) -> Float[Tensor, "views features width"]:
        return self.select(self.hidden_states(pixels))
