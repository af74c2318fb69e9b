"""Which matrix becomes what."""

from __future__ import annotations

import pytest

from llavakit.quantize.schemes import SCHEMES, Grid, describe, find_scheme


def test_bits_count_the_scales() -> None:
    assert [Grid("int4", 32).bits, Grid("int4", 128).bits, Grid("int4z", 32).bits] == [4.5, 4.125, 5]
    assert [Grid("nf4", 32).bits, Grid("int8", 32).bits] == [4.5, 8.5]


@pytest.mark.parametrize("name", SCHEMES)
def test_embeddings_head_and_tower_have_eight_bits(name: str) -> None:
    scheme = SCHEMES[name]
    kinds = {
        place: scheme.grid(place).kind
        for place in ("language.embed_tokens", "language.lm_head", "vision.layers.0.mlp.fc1", "projector.fc1")
    }
    assert set(kinds.values()) == {"int8"}
    assert name.startswith(scheme.grid("language.layers.0.mlp.up_proj").kind)
    assert scheme.is_exact == (name == "int8")


def test_a_scheme_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="there is no scheme 'int4_g32'; did you mean 'int4-g32'?"):
        find_scheme("int4_g32")


def test_in_words() -> None:
    assert describe(SCHEMES["int4-g32"]).startswith("language model int4 in groups of 32, 4.5 bits; head and")
