"""What is recorded is what went in."""

from __future__ import annotations

from collections.abc import Callable

import torch

from llavakit.model import Llava
from llavakit.quantize.calibrate import recorded
from llavakit.quantize.moments import BLOCK
from llavakit.quantize.schemes import SCHEMES


def test_moments_are_those_of_the_inputs(model: Llava, look: Callable) -> None:
    given: list[torch.Tensor] = []
    layer = model.language.layers[1].mlp.down_proj
    hook = layer.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0][0]))
    with recorded(model, SCHEMES["int4-g32"]) as inputs:
        look(model)
        look(model)
    hook.remove()
    moments = inputs["language.layers.1.mlp.down_proj"]
    x = torch.cat(given)
    assert moments.count == len(x) == 22 and moments.mean.shape == (1, BLOCK, BLOCK)
    torch.testing.assert_close(moments.mean[0, :168, :168], x.T @ x / len(x))
    assert moments.mean[0, 168:].eq(0).all()


def test_only_matrices_of_few_bits_are_watched_and_neighbours_share(model: Llava, look: Callable) -> None:
    with recorded(model, SCHEMES["nf4"]) as inputs:
        look(model)
    assert all(name.startswith("language.layers.") for name in inputs) and len(inputs) == 14
    attention = "language.layers.0.self_attn"
    assert inputs[f"{attention}.q_proj"] is inputs[f"{attention}.v_proj"] is not inputs[f"{attention}.o_proj"]
    with recorded(model, SCHEMES["int8"]) as inputs:
        look(model)
    assert not inputs


def test_nothing_is_left_on_the_model(model: Llava, look: Callable) -> None:
    with recorded(model, SCHEMES["nf4"]):
        pass
    assert not any(module._forward_pre_hooks for module in model.modules())
