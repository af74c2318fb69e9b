"""Features of pictures seen before, so that the tower looks at each picture once."""

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
    """What is kept of a picture: its features, with or without their places."""

    @property
    def nbytes(self) -> int: ...


Seen = TypeVar("Seen", bound=HasBytes)


class ImageCache(Generic[Seen]):
    """Features by digest of the picture; when they exceed `max_bytes`, those not used for longest are dropped."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._features: OrderedDict[bytes, Seen] = OrderedDict()

    def get(self, digest: bytes, encode: Callable[[], Seen]) -> Seen:
        """The features of the picture with this digest; `encode` is asked only if they are not at hand."""
        if digest not in self._features:
            self._features[digest] = encode()
        self._features.move_to_end(digest)
        features = self._features[digest]
        while len(self._features) > 1 and self.num_bytes > self._max_bytes:
            self._features.popitem(last=False)
        return features

    @property
    def num_bytes(self) -> int:
        return sum(features.nbytes for features in self._features.values())


def picture_digest(
    pixels: Float[Tensor, "views 3 size size"], size: Size, visual_tokens: VisualTokens | None = None
) -> bytes:
    """A short name for exactly this picture: equal ones have equal names, however they were opened.

    The size is part of it: pictures of one colour may have equal tiles, but not equally many tokens.
    So is what was asked of it: features brought down to fewer are no features of another setting.
    """
    raw = pixels.contiguous().view(torch.uint8).numpy()
    named = hashlib.blake2b(raw, digest_size=16, salt=struct.pack("<QQ", *size))
    if visual_tokens is not None:
        named.update(str(visual_tokens).encode())
    return named.digest()
