"""Pictures seen before as the language model reads them, so that the tower looks at each picture once."""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from llavakit.anyres import Size


class ImageCache:
    """Embeddings by digest of the picture; when they exceed `max_bytes`, those not used for longest are dropped."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._embeds: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(
        self, digest: bytes, encode: Callable[[], Float[Tensor, "image_tokens dim"]]
    ) -> Float[Tensor, "image_tokens dim"]:
        """The embeddings of the picture with this digest; `encode` is asked only if they are not at hand."""
        if digest not in self._embeds:
            self._embeds[digest] = encode()
        self._embeds.move_to_end(digest)
        embeds = self._embeds[digest]
        while len(self._embeds) > 1 and self.num_bytes > self._max_bytes:
            self._embeds.popitem(last=False)
        return embeds

    @property
    def num_bytes(self) -> int:
        return sum(embeds.nbytes for embeds in self._embeds.values())


def picture_digest(pixels: Float[Tensor, "views 3 size size"], size: Size, *, tenant: str = "") -> bytes:
    """A short name for exactly this picture: equal ones have equal names, however they were opened.

    The size is part of it: pictures of one colour may have equal tiles, but not equally many tokens. So is the tenant,
    who cannot find out what pictures others have shown.
    """
    raw = pixels.contiguous().view(torch.uint8).numpy()
    key = hashlib.blake2b(tenant.encode(), digest_size=32).digest()
    return hashlib.blake2b(raw, digest_size=16, salt=struct.pack("<QQ", *size), key=key).digest()
