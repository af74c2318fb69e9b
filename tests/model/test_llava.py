"""Pictures and words joined: what goes where, and what is refused."""

from __future__ import annotations

import pytest
import torch

from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig
from llavakit.model import Images, Llava
from llavakit.model.llava import merge

CONFIG = LlavaConfig(
    vision=VisionConfig(image_size=14, patch_size=7, hidden_size=16, intermediate_size=24, num_layers=3, num_heads=2),
    language=LanguageConfig(
        vocab_size=40, hidden_size=24, intermediate_size=32, num_layers=2, num_heads=4, num_kv_heads=4, head_dim=6
    ),
    tokens=SpecialTokens(image=39),
)


def test_merge_writes_in_reading_order_and_nowhere_else() -> None:
    embeds = torch.zeros(2, 3, 2)
    at = torch.tensor([[False, True, False], [True, True, False]])
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    merged = merge(embeds, at=at, features=features)
    assert torch.equal(merged[at], features)
    assert not merged[~at].any()


@pytest.mark.parametrize("num_features", [0, 1, 3])
def test_merge_refuses_another_number_of_features(num_features: int) -> None:
    at = torch.tensor([[True, True, False]])
    with pytest.raises(ValueError, match=f"2 image placeholders in the tokens, but {num_features} image features"):
        merge(torch.zeros(1, 3, 2), at=at, features=torch.zeros(num_features, 2))


def test_gradients_reach_projector_and_words() -> None:
    model = Llava(CONFIG)
    tokens = torch.tensor([[1, *[39] * CONFIG.vision.num_features, 5]])
    positions = torch.arange(tokens.shape[1])[None]
    model(tokens, Images(pixels=torch.randn(1, 3, 14, 14)), positions).sum().backward()
    assert model.projector.fc1.weight.grad.any()
    touched = model.language.embed_tokens.weight.grad.any(dim=1)
    assert touched.nonzero().flatten().tolist() == [1, 5]


def test_features_seen_before_stand_for_pixels() -> None:
    model = Llava(CONFIG).eval()
    pixels = torch.randn(2, 3, 14, 14)
    with torch.inference_mode():
        features = model.vision(pixels)
        assert torch.equal(model.encode_images(Images(features=features)), model.encode_images(Images(pixels=pixels)))


@pytest.mark.parametrize(("feature_layer", "layers"), [(-2, 2), (-1, 3), (0, 0), (1, 1), (3, 3), (-4, 0)])
def test_layers_that_cannot_matter_do_not_exist(feature_layer: int, layers: int) -> None:
    vision = CONFIG.vision.model_copy(update={"feature_layer": feature_layer})
    assert len(Llava(CONFIG.model_copy(update={"vision": vision})).vision.layers) == layers
