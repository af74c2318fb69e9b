"""Four tiny runs, one a stage, on a dozen pictures of one colour each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llavakit.checkpoint.save import save
from llavakit.config import ClipConfig, LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig
from llavakit.model import Llava
from llavakit.processing import train_tokenizer
from llavakit.train.config import TrainConfig

VISION = VisionConfig(
    image_size=14, patch_size=7, hidden_size=8, intermediate_size=12, num_layers=3, num_heads=2, feature_layer=-2
)
LANGUAGE = LanguageConfig(
    vocab_size=300,
    hidden_size=8,
    intermediate_size=12,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    max_positions=512,
)
MODEL = LlavaConfig(vision=VISION, language=LANGUAGE, tokens=SpecialTokens(pad=0, bos=1, eos=2, image=3))
TIED = LANGUAGE.model_copy(update={"tie_embeddings": True})  # the text tower has no use for an output matrix
CLIP = ClipConfig(vision=VISION, text=TIED, embed_dim=8)
COLOURS = ("red", "green", "blue", "white", "black", "yellow", "orange", "purple", "brown", "gray")


@dataclass(frozen=True)
class World:
    """Files to train on: captions with foils and regions, talk about pictures, text; a tokenizer, a first model."""

    captions: str
    mixed: str
    text: str
    tokenizer: str
    start: str


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    for colour in COLOURS:
        Image.new("RGB", (20, 16), colour).save(folder / f"{colour}.png")
    captions = [
        _sample(
            colour,
            "Describe it.",
            f"A {colour} field.",
            foils=["A pink sky."],
            regions=[{"text": f"{colour} ground"}, {"text": colour, "box": [0, 0, 8, 8]}],
        )
        for colour in COLOURS
    ]
    mixed = [
        _sample(colour, "Which colour?", f"{colour.title()}. " * (1 + at % 3)) for at, colour in enumerate(COLOURS)
    ]
    mixed.append({"id": "talk", "conversations": _turns("Hello!", "Hello, show me a picture.")})
    text = [{"id": f"text-{colour}", "conversations": _turns("", f"The field is {colour}.")} for colour in COLOURS]
    tokenizer = train_tokenizer(["a red field", "which colour is it"], LANGUAGE.vocab_size)
    tokenizer.save(folder / "tokenizer.json")
    torch.manual_seed(1)
    save(Llava(MODEL), tokenizer, folder / "start")
    paths = {name: str(folder / f"{name}.json") for name in ("captions", "mixed", "text", "tokenizer")}
    for name, samples in (("captions", captions), ("mixed", mixed), ("text", text)):
        Path(paths[name]).write_text(json.dumps(samples))
    return World(**paths, start=str(folder / "start"))


def _sample(colour: str, question: str, answer: str, **extra: Any) -> dict[str, Any]:
    return {"id": colour, "image": f"{colour}.png", "conversations": _turns(f"<image>\n{question}", answer), **extra}


def _turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.fixture
def configure(world: World, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Makes the configuration of a tiny run of a stage, with changes."""
    anew, muon = {"model": MODEL, "tokenizer": world.tokenizer}, {"optimizer": "muon"}
    stages: dict[str, dict[str, Any]] = {
        "clip": anew | muon | {"data": world.captions, "clip": CLIP, "num_foils": 1, "patch_weight": 1.0},
        "language": anew | muon | {"data": world.text},
        "align": {"data": world.captions, "start": world.start},
        "instruct": {"data": world.mixed, "start": world.start},
    }

    def configure(stage: str, **changes: Any) -> TrainConfig:
        given = {
            "stage": stage,
            "out": str(tmp_path / stage),
            "steps": 6,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "precision": "fp32",
            "device": "cpu",
            "workers": 0,
            "save_every": 2,
            "log_every": 1,
        }
        return TrainConfig.parse(given | stages[stage] | changes)

    return configure
