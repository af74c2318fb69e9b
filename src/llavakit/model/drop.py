"""Fewer visual tokens from some layer of the language model on: those that the end of the prompt looks at.

In FastV (Chen et al. 2024) the first layers read all of a picture, and by then the last token of the prompt, which
knows the question, attends to few of its tokens. The layers behind do without the others: nobody attends to them, and
no keys and values of them are kept. What stays has the rotary position that it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from llavakit.anyres import PartlyKept
from llavakit.model.cache import Cache


@dataclass(frozen=True)
class Drop:
    """What the layers behind the first `after_layer` do without.

    Of each of `pictures` those tokens stay that the token `asker` attends to most in layer `after_layer`. Tokens are
    counted among the new ones; with pictures there is a single row. `cache` is that of the later layers, which holds
    fewer tokens.
    """

    after_layer: int
    pictures: Sequence[PartlyKept] = ()
    asker: int = -1
    cache: Cache | None = None


def attention_of(
    asker: int, queries: Float[Tensor, "heads new dim"], keys: Float[Tensor, "kv_heads all dim"]
) -> Float[Tensor, " new"]:
    """How much one new token attends to each of them: the mean over its heads, in float32; 0 to those behind it."""
    number, dim = queries.shape[1:]
    first, asker = keys.shape[1] - number, asker % number
    shared = queries[:, asker].float().unflatten(0, (len(keys), -1))
    scores = shared @ keys[:, : first + asker + 1].float().transpose(-1, -2) * dim**-0.5
    seen = scores.softmax(-1).mean((0, 1))[first:]
    return F.pad(seen, (0, number - len(seen)))


def staying(attention: Float[Tensor, " new"], pictures: Sequence[PartlyKept]) -> Int[Tensor, " kept"]:
    """Which tokens stay, in order: all that are of no picture, and of equals in a picture the first."""
    stays = torch.ones(len(attention), dtype=torch.bool, device=attention.device)
    for first, end, count in pictures:
        order = attention[first:end].sort(descending=True, stable=True).indices
        stays[first + order[count:]] = False
    return stays.nonzero()[:, 0]
