"""Where one kernel decodes a whole token, and how much room it takes; what it computes is in test_gpu_language.py."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llavakit.kernels.gpu import persistent
from llavakit.kernels.gpu.layers import GpuLayer, GpuModel, Sizes
from llavakit.kernels.gpu.matrix import GpuMatrix
from llavakit.kernels.gpu.persistent import persistent_decoder

HOPPER = 232_448  # bytes of shared memory that a program may have there

# hidden, inner, query heads, key heads: Vicuna 7B and 13B, Mistral 7B and Llama 3 8B
SHAPES = [(4096, 11008, 32, 32), (5120, 13824, 40, 40), (4096, 14336, 32, 8)]


class Launcher:
    """Takes note of what would be compiled."""

    programs, shared_memory = 132, HOPPER

    def __call__(self, source: str, constants: dict[str, int], shared_memory: int) -> Any:
        self.constants, self.taken = constants, shared_memory


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def matrix(rows: int, cols: int, bits: int, group: int) -> GpuMatrix:
    if bits == 16:
        return GpuMatrix(meta(rows, cols), rows, cols)
    data = meta(rows, cols * bits // 8, dtype=torch.uint8)
    return GpuMatrix(data, rows, cols, bits, group, meta(rows // 2, cols // group // 2, 2, dtype=torch.int32))


def model(
    shapes: tuple[int, int, int, int] = SHAPES[0], bits: int = 16, group: int = 128, head_dim: int = 128
) -> GpuModel:
    dim, inner, heads, kv_heads = shapes
    layer = GpuLayer(
        meta(dim), matrix((heads + 2 * kv_heads) * head_dim, dim, bits, group), None,
        matrix(dim, heads * head_dim, bits, group), meta(dim), matrix(2 * inner, dim, bits, group),
        matrix(dim, inner, bits, group), *(meta(kv_heads, 1024, head_dim) for _ in range(2)),
    )  # fmt: skip
    return GpuModel(
        [layer], Sizes(heads, kv_heads, head_dim, 16, 4, 1e-5), table=meta(32064, dim), norm=meta(dim),
        head=matrix(32064, dim, 8 if bits < 16 else 16, 128), cosine=meta(4096, head_dim // 2),
        sine=meta(4096, head_dim // 2), bias=None, drop_after=1,
    )  # fmt: skip


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(("bits", "group"), [(16, 128), (8, 128), (4, 128), (4, 32)])
def test_the_usual_shapes_find_room_on_a_hopper(shapes: tuple[int, int, int, int], bits: int, group: int) -> None:
    launcher = Launcher()
    persistent.PersistentDecoder(model(shapes, bits, group), launcher=launcher)
    constants = launcher.constants
    stage = 4 * constants["PIECE"] + constants["SCALES"] + 16
    assert HOPPER - constants["WARPS"] * stage < launcher.taken <= HOPPER
    assert constants["STAGES"] >= 4 and constants["AHEAD"] < constants["STAGES"]


def test_too_little_shared_memory_is_said() -> None:
    launcher = Launcher()
    launcher.shared_memory = 60_000
    with pytest.raises(RuntimeError, match="60000 bytes of shared memory"):
        persistent.PersistentDecoder(model(), launcher=launcher)


def on_card(model: GpuModel) -> GpuModel:
    table = SimpleNamespace(device=torch.device("cuda"), dtype=model.table.dtype, data_ptr=model.table.data_ptr)
    return replace(model, table=table)


@pytest.mark.parametrize("capability", [(8, 0), (8, 9)])
def test_older_cards_have_none(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert persistent_decoder(on_card(model())) is None


def test_what_it_does_not_divide_is_left_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(persistent, "PersistentDecoder", None)  # which nobody may ask for
    in_floats = replace(model(), table=model().table.float())
    for each in (model(head_dim=96), model((4096, 14336, 28, 4)), in_floats):
        assert persistent_decoder(on_card(each)) is None


def test_weights_that_begin_anywhere_are_left_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(persistent, "PersistentDecoder", None)
    anywhere = replace(model(), norm=torch.empty(4097, dtype=torch.bfloat16)[1:])
    assert persistent_decoder(on_card(anywhere)) is None


def test_a_compiler_that_fails_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> None:
        raise RuntimeError("NVRTC: no such file")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(persistent, "OnCard", fail)
    with pytest.warns(UserWarning, match="five kernels a layer, because one for all of them failed: NVRTC: no such"):
        assert persistent_decoder(on_card(model())) is None
