"""What a user types over a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from llavakit.config import ConfigError
from llavakit.train.overrides import recipe_config

MINE = ["start=pocket", "data=my.json"]


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("learning_rate=1e-3", "learning_rate", 1e-3),
        ("learning_rate=0.01", "learning_rate", 0.01),
        ("steps=7", "steps", 7),
        ("clip_norm=null", "clip_norm", None),
        ("data=a.json", "data", ("a.json",)),
        ("data=[a.json, b.json]", "data", ("a.json", "b.json")),
        ("parts.vision=runs/tower", "parts", {"vision": "runs/tower"}),
        ("fresh=[projector]", "fresh", ("projector",)),
        ("out=runs/a=b", "out", "runs/a=b"),
    ],
)
def test_values(word: str, key: str, value: object) -> None:
    assert getattr(recipe_config("finetune", [*MINE, word]), key) == value


def test_dots_reach_inside() -> None:
    config = recipe_config("pocket-language", ["model.language.rope_theta=5e4"])
    assert config.model.language.rope_theta == 5e4
    assert config.model.vision == recipe_config("pocket-language", []).model.vision


@pytest.mark.parametrize(
    ("recipe", "words", "sentence"),
    [
        ("finetun", MINE, "there is no recipe 'finetun'; did you mean 'finetune'?"),
        ("poket", [], "there is no recipe 'poket'; did you mean 'pocket'?"),
        ("finetune", [], "recipe finetune needs start= and data=, as in: llava train finetune start=pocket data="),
        ("align", ["data=a.json"], "recipe align needs start=, as in"),
        ("finetune", [*MINE, "learning_rat=1"], "unknown key 'learning_rat': did you mean 'learning_rate'?"),
        (
            "pocket-clip",
            ["model.vision.image_sizes=3"],
            "unknown key 'model.vision.image_sizes': did you mean 'image_size'?",
        ),
        ("finetune", [*MINE, "steps"], "'steps' is no setting; write key=value"),
        ("finetune", [*MINE, "steps=many"], "steps is 'many': input should be a valid integer"),
        ("finetune", [*MINE, "out=[a"], "out: cannot read '[a' as a value"),
        ("finetune", [*MINE, "data=[]"], "data is []"),
        ("align", [*MINE, "vision_rate=1e-6"], "vision_rate belongs to stage instruct"),
        ("finetune", [*MINE, "num_foils=1"], "num_foils belongs to stage clip"),
        ("finetune", [*MINE, "start=null"], "start is missing: a model to begin from, or else model and tokenizer"),
        ("finetune", [*MINE, "tokenizer=a.json"], "with start, shape and tokenizer come from there"),
        ("pocket-clip", ["start=pocket"], "stage clip begins anew"),
        ("pocket-clip", ["micro_batch=8"], "stage clip compares the pictures of a batch with each other"),
        ("pocket-align", ["fresh=[vision]"], "fresh names parts of a start, and there is none"),
        ("pocket-clip", ["model.vision.num_layers=3"], "clip.vision and model.vision are one tower"),
        ("none.yaml", [], "there is no file none.yaml"),
    ],
)
def test_a_mistake_is_one_sentence(recipe: str, words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe_config(recipe, words)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "sentence"), [("a: [", "is not valid YAML"), ("", "should hold key: value lines")])
def test_a_file_that_is_no_configuration(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        recipe_config(str(tmp_path / "run.yaml"), [])
