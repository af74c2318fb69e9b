"""Shapes in signatures are checked in every test: this is the test that they really are."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from llavakit.model import Images
from llavakit.model.layers import rotate


def test_a_wrong_shape_is_caught() -> None:
    angles = torch.zeros(1, 1, 5, 8)
    with pytest.raises(TypeCheckError):
        rotate(torch.zeros(1, 2, 4, 8), angles, angles)
    with pytest.raises(TypeCheckError):
        Images(pixels=torch.zeros(3, 28, 28))
