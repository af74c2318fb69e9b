"""Two models part where they were made to differ, and the same model in two formats nowhere."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llavakit.checkpoint.contents import Parts
from llavakit.checkpoint.importing import import_checkpoint
from llavakit.checkpoint.load import Loaded, load
from llavakit.config import TilingConfig
from llavakit.model import Llava
from llavakit.parity.pictures import drawn
from llavakit.parity.report import Report, report
from llavakit.parity.walk import Walk, walk


def walks(loaded: Loaded) -> dict[str, Walk]:
    return {name: walk(loaded, image, "What is it?", max_tokens=6) for name, image in drawn().items()}


def compare(one: Loaded, other: Loaded) -> Report:
    return report(walks(one), walks(other))


@pytest.fixture
def changed(model_folder: Path) -> Callable[..., Loaded]:
    """The tiny model with weights shifted, or configured otherwise."""

    def change(weight: str = "", by: float = 0.5, **config: Any) -> Loaded:
        loaded = load(model_folder)
        if weight:
            with torch.no_grad():
                loaded.model.get_parameter(weight).view(-1)[0] += by
        new = loaded.config.model_copy(update=config)
        loaded.model.config = new
        return dataclasses.replace(loaded, config=new)

    return change


def test_a_model_agrees_with_itself(model_folder: Path) -> None:
    found = compare(load(model_folder), load(model_folder))
    assert found.first_to_part is None
    assert [stage.largest for stage in found.stages] == [0.0, 0.0, 0.0, None, 0.0, None]
    assert len(found.pictures) == 5


@pytest.mark.parametrize(
    ("weight", "stage"),
    [
        ("vision.layers.0.mlp.fc1.bias", "features"),
        ("vision.embeddings.position_embedding.weight", "features"),
        ("projector.fc2.bias", "projected"),
        ("language.layers.1.mlp.down_proj.weight", "logits"),
        ("language.lm_head.weight", "logits"),
    ],
)
def test_one_changed_weight(weight: str, stage: str, model_folder: Path, changed: Callable[..., Loaded]) -> None:
    found = compare(load(model_folder), changed(weight))
    first = found.first_to_part
    assert first is not None and first.name == stage
    assert first.parting is not None and first.parting.picture == "drawn 336x336"
    assert first.largest is not None and first.largest > 1e-3


def test_a_weight_that_is_no_number(model_folder: Path, changed: Callable[..., Loaded]) -> None:
    found = compare(load(model_folder), changed("projector.fc2.bias", by=torch.nan))
    first = found.first_to_part
    assert first is not None and (first.name, first.largest) == ("projected", torch.inf)
    assert first.parting is not None and first.parting.says.endswith(" and nan")


def test_two_that_hold_no_numbers_are_not_the_same(model_folder: Path, changed: Callable[..., Loaded]) -> None:
    found = compare(changed("projector.fc2.bias", by=torch.nan), changed("projector.fc2.bias", by=torch.nan))
    first = found.first_to_part
    assert first is not None and first.name == "projected" and first.parting is not None
    assert first.parting.says == "nan and nan, where neither is a number"


def test_another_way_to_the_square(model_folder: Path, changed: Callable[..., Loaded]) -> None:
    first = compare(load(model_folder), changed(resize_mode="square")).first_to_part
    assert first is not None and first.name == "pixels" and first.parting is not None
    assert first.parting.picture == "drawn 401x83"  # a square picture is the same either way


def test_another_template(model_folder: Path, changed: Callable[..., Loaded]) -> None:
    found = compare(load(model_folder), changed(template="llava_v1"))
    first = found.first_to_part
    assert first is not None and first.name == "prompt"
    assert [stage.agrees for stage in found.stages[:3]] == [True, True, True]


def test_another_grid_and_its_newline(model_folder: Path, changed: Callable[..., Loaded]) -> None:
    def tiled(pinpoints: list[tuple[int, int]], newline: float) -> Loaded:
        loaded = load(model_folder)
        tiling = TilingConfig(pinpoints=pinpoints)
        config = loaded.config.model_copy(update={"resize_mode": "anyres", "tiling": tiling})
        model = Llava(config)
        model.load_state_dict(loaded.model.state_dict(), strict=False)
        torch.nn.init.constant_(model.image_newline, newline)
        return dataclasses.replace(loaded, model=model.eval(), config=config)

    one = tiled([(56, 28), (28, 56)], 0.1)
    first = compare(one, tiled([(56, 28), (28, 56)], 0.2)).first_to_part
    assert first is not None and first.name == "projected"
    first = compare(one, tiled([(56, 56)], 0.1)).first_to_part
    assert first is not None and first.name == "pixels" and first.largest is None and first.parting is not None
    assert first.parting.says == "of the shapes [3, 3, 28, 28] and [5, 3, 28, 28]"


def test_a_checkpoint_in_three_formats(fixtures: Path, tmp_path: Path) -> None:
    """The original's files, what was imported from them, and Hugging Face's conversion of them."""
    checkpoints = fixtures / "checkpoints"
    source, parts = checkpoints / "v16-anyres-vicuna", Parts(checkpoints / "openai" / "clip-tiny-patch14-56-c")
    import_checkpoint(source, tmp_path / "native", parts=parts)
    hf = Path(shutil.copytree(fixtures / "hf" / "converted" / source.name, tmp_path / "hf"))
    for file in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(source / file, hf)
    original = walks(load(source, parts=parts))
    assert report(original, walks(load(tmp_path / "native"))).first_to_part is None
    converted = walks(load(hf))
    first = report(original, converted).first_to_part
    # Of pictures no larger than the tower's, the two implementations choose different canvases.
    assert first is not None and first.name == "pixels" and first.parting is not None
    assert first.parting.picture == "drawn 23x17"
    larger = {name: one for name, one in original.items() if name != "drawn 23x17"}
    assert report(larger, converted).first_to_part is None
