"""Pictures seen before as the language model reads them, so that the tower looks at each picture once."""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from llavakit.anyres import Size
from llavakit.config import VisualTokens


class HasBytes(Protocol):
    """What is kept of a picture."""

    @property
    def nbytes(self) -> int: ...


Seen = TypeVar("Seen", bound=HasBytes)


class ImageCache(Generic[Seen]):
    """What was seen, by digest of the picture; above `max_bytes`, what was not used for longest is dropped."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._seen: OrderedDict[bytes, Seen] = OrderedDict()

    def get(self, digest: bytes, encode: Callable[[], Seen]) -> Seen:
        """What was seen in the picture with this digest; `encode` is asked only if that is not at hand."""
        if digest not in self._seen:
            self._seen[digest] = encode()
        self._seen.move_to_end(digest)
        seen = self._seen[digest]
        while len(self._seen) > 1 and self.num_bytes > self._max_bytes:
            self._seen.popitem(last=False)
        return seen

    @property
    def num_bytes(self) -> int:
        return sum(seen.nbytes for seen in self._seen.values())


def picture_digest(
    pixels: Float[Tensor, "views 3 size size"],
    size: Size,
    visual_tokens: VisualTokens | None = None,
    *,
    tenant: str = "",
) -> bytes:
    """A short name for exactly this picture: equal ones have equal names, however they were opened.

    The size is part of it: pictures of one colour may have equal tiles, but not equally many tokens. So is what was
    asked of it: features brought down to fewer are no features of another setting. And so is the tenant, who cannot
    find out what pictures others have shown.
    """
    raw = pixels.contiguous().view(torch.uint8).numpy()
    key = hashlib.blake2b(tenant.encode(), digest_size=32).digest()
    named = hashlib.blake2b(raw, digest_size=16, salt=struct.pack("<QQ", *size), key=key)
    if visual_tokens is not None:
        named.update(str(visual_tokens).encode())
    return named.digest()
