"""A quantised model answers nearly as it did, and nothing of it is forgotten or counted twice."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from llavakit.model import Llava
from llavakit.quantize.apply import bytes_in, make_room, num_weights, quantize_model, scheme_of
from llavakit.quantize.calibrate import recorded
from llavakit.quantize.linear import PackedMatrix
from llavakit.quantize.schemes import SCHEMES


@pytest.mark.parametrize(("scheme", "allowed"), [("int8", 0.05), ("int4-g32", 0.2), ("int4-g128", 0.25), ("nf4", 0.2)])
def test_logits_stay_near(model: Llava, look: Callable, scheme: str, allowed: float) -> None:
    before = look(model)
    with recorded(model, SCHEMES[scheme]) as inputs:
        look(model)
    after = look(quantize_model(copy.deepcopy(model), SCHEMES[scheme], inputs))
    assert 0 < (after - before).norm() / before.norm() < allowed


def test_every_matrix_is_packed_and_the_rest_as_it_was(model: Llava) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = num_weights(model)
    quantize_model(model, SCHEMES["int4-g32"])
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    after = model.state_dict()
    packed = {name.removesuffix(".packed") for name in after if name.endswith(".packed")}
    assert {f"{name}.weight" for name in packed} == {name for name in before if name not in after}
    assert all(torch.equal(after[name], before[name]) for name in after if name in before)
    assert num_weights(model) == weights


@pytest.mark.parametrize("scheme", SCHEMES)
def test_room_is_as_large_as_was_foretold(model: Llava, scheme: str) -> None:
    foretold = bytes_in(model, SCHEMES[scheme])
    assert scheme_of(model) is None
    room = make_room(model.half(), SCHEMES[scheme])
    assert scheme_of(model) == scheme
    assert sum(tensor.nbytes for tensor in model.state_dict().values()) == foretold
    assert all(isinstance(place, PackedMatrix) for place in room.values())


def test_a_copy_has_its_own_head(model: Llava) -> None:
    other = copy.deepcopy(quantize_model(model, SCHEMES["int8"]))
    other.language.embed_tokens.packed.fill_(128)
    hidden = torch.ones(1, 96)
    if model.config.language.tie_embeddings:
        assert other.language.logits(hidden).eq(0).all()
    assert model.language.logits(hidden).ne(0).any()
