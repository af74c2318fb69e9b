"""The connector: tower features into the language model's space (LLaVA: one matrix; LLaVA-1.5: two with a GELU)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from llavakit.config import ProjectorConfig


class Projector(nn.Module):
    def __init__(self, config: ProjectorConfig, *, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_dim, out_dim, bias=config.bias)
        self.fc2 = nn.Linear(out_dim, out_dim, bias=config.bias) if config.kind == "mlp2x_gelu" else None

    def forward(self, features: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch dim"]:
        embeds = self.fc1(features)
        return embeds if self.fc2 is None else self.fc2(F.gelu(embeds))
