"""What a foreign file cannot say stands in it all the same, and nothing else does."""

from __future__ import annotations

import pytest

from llavakit.checkpoint.remarks import remarks, with_remarks
from llavakit.config import ConfigError, LlavaConfig, SpecialTokens, TilingConfig

PLAIN = LlavaConfig()
TILED = PLAIN.model_copy(
    update={"resize_mode": "anyres", "tiling": TilingConfig(pinpoints=[(336, 672)], compat="original")}
)


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (PLAIN, PLAIN, {"template": "vicuna_v1"}),
        (
            TILED,
            TILED.model_copy(update={"tiling": TILED.tiling.model_copy(update={"compat": "hf"})}),
            {"template": "vicuna_v1", "tiling": {"compat": "original"}},
        ),
        (
            PLAIN.model_copy(update={"template": "qwen_1_5", "tokens": SpecialTokens(bos=None, image=3)}),
            PLAIN,
            {"template": "qwen_1_5", "tokens": {"bos": None, "image": 3}},
        ),
    ],
)
def test_what_differs_is_said_and_read(ours: LlavaConfig, theirs: LlavaConfig, said: dict[str, object]) -> None:
    assert remarks(ours, theirs) == said
    assert with_remarks(theirs, {"hidden_size": 1, "llavakit": said}) == ours
    assert with_remarks(theirs, {}) == theirs


def test_numbers_of_the_model_are_no_remarks() -> None:
    other = PLAIN.model_copy(update={"language": PLAIN.language.model_copy(update={"num_layers": 3})})
    with pytest.raises(ConfigError, match=r"language\.num_layers is 3, and it can only be 32 there"):
        remarks(other, PLAIN)
    with pytest.raises(ConfigError, match=r"llavakit holds language\.num_layers, which does not belong there"):
        with_remarks(PLAIN, {"llavakit": {"language": {"num_layers": 3}}})


@pytest.mark.parametrize("given", [["template"], "x", {"tokens": {"eos": "</s>"}}, {"tokens": 3}])
def test_what_is_no_remark_is_an_error(given: object) -> None:
    with pytest.raises(ConfigError):
        with_remarks(PLAIN, {"llavakit": given})
