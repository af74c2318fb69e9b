"""Law 8: a checkpoint leaves no unused and no missing key; each is an error that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.rename import rename_back
from llavakit.checkpoint.tables import LLAVA_HF_LAYOUTS, Table
from llavakit.checkpoint.weights import load_model
from llavakit.model import Llava

Edit = Callable[[dict[str, Tensor]], object]


def edit(folder: Path, change: Edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("projector.fc2.bias"), r"missing: projector\.fc2\.bias$"),
        (lambda t: t.update({"language.extra": torch.zeros(2)}), r"not used: language\.extra$"),
        (
            lambda t: t.update({"language.norm.weight": torch.zeros(3)}),
            r"of another shape than the configuration says: language\.norm\.weight \[3\] instead of \[8\]$",
        ),
        (
            lambda t: t.update({"language.norm.weight": torch.zeros(8, dtype=torch.int8)}),
            r"not floating-point numbers: language\.norm\.weight \(I8\)$",
        ),
        (
            lambda t: t.update({"vision.layers.9.mlp.fc1.bias": torch.zeros(2)}),
            r"not used: vision\.layers\.9\.mlp\.fc1\.bias$",
        ),
    ],
)
def test_each_key_at_fault_is_named(change: Edit, sentence: str, folder: Path) -> None:
    edit(folder, change)
    with pytest.raises(CheckpointError, match=sentence):
        load_model(folder)


def test_all_faults_are_told_at_once_and_long_lists_are_cut(folder: Path) -> None:
    edit(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("vision.")])
    edit(folder, lambda tensors: tensors.update({"typo": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"missing: .* and \d+ more; not used: typo$"):
        load_model(folder)


@pytest.mark.parametrize("layout", LLAVA_HF_LAYOUTS)
def test_every_weight_of_ours_has_one_place_in_a_layout(layout: Table, model: Llava) -> None:
    theirs = [rename_back(name, layout) for name in model.state_dict()]
    assert None not in theirs
    assert len(set(theirs)) == len(theirs)


def test_a_tied_matrix_stored_twice_must_be_the_same(model: Llava, folder: Path) -> None:
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"tie_embeddings": false', '"tie_embeddings": true'))
    with pytest.raises(
        CheckpointError, match=r"ties language\.lm_head\.weight to .*embed_tokens.*, but the two differ"
    ):
        load_model(folder)

    embeddings = model.language.embed_tokens.weight.detach()
    edit(folder, lambda tensors: tensors.update({"language.lm_head.weight": embeddings.clone()}))
    assert torch.equal(load_model(folder).language.output_weight, embeddings)
