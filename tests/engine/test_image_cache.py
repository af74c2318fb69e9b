"""Laws of remembered features."""

from __future__ import annotations

import torch

from llavakit.engine.image_cache import ImageCache, picture_digest


def features(value: float) -> torch.Tensor:
    return torch.full((2, 4), float(value))  # 32 bytes


def test_each_picture_is_encoded_once() -> None:
    cache, calls = ImageCache(max_bytes=100), []
    for _ in range(3):
        got = cache.get(b"a", lambda: calls.append("a") or features(1))
        assert torch.equal(got, features(1))
    assert calls == ["a"]


def test_those_not_used_for_longest_go_first() -> None:
    cache, calls = ImageCache(max_bytes=64), []
    for name in "abaca":
        cache.get(name.encode(), lambda name=name: calls.append(name) or features(0))
        assert cache.num_bytes <= 64
    assert calls == ["a", "b", "c"]
    cache.get(b"b", lambda: calls.append("b") or features(0))
    assert calls == ["a", "b", "c", "b"]


def test_a_picture_larger_than_the_cache_is_still_answered() -> None:
    cache = ImageCache(max_bytes=1)
    assert torch.equal(cache.get(b"a", lambda: features(5)), features(5))
    assert torch.equal(cache.get(b"b", lambda: features(6)), features(6))
    assert cache.num_bytes == 32


def test_digests_tell_pictures_apart() -> None:
    pixels, size = torch.rand(1, 3, 4, 4), (4, 5)
    other = pixels.clone()
    other[0, 2, 3, 3] += 1e-6
    assert picture_digest(pixels, size) == picture_digest(pixels.clone(), size)
    assert picture_digest(pixels, size) == picture_digest(torch.stack([other, pixels], dim=1)[:, 1], size)
    assert picture_digest(pixels, size) != picture_digest(other, size)
    assert picture_digest(pixels, size) != picture_digest(pixels, (5, 4))


def test_tenants_share_no_names() -> None:
    pixels, size = torch.rand(1, 3, 4, 4), (4, 5)
    names = {picture_digest(pixels, size, tenant=tenant) for tenant in ("", "a", "b")}
    assert len(names) == 3
