"""What a run starts from, and what it says when that is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llavakit.checkpoint.load import load
from llavakit.config import TilingConfig
from llavakit.train.config import TrainConfig, TrainError
from llavakit.train.run import train
from llavakit.train.setup import prepare

Configure = Callable[..., TrainConfig]


def test_parts_come_from_runs_and_models(configure: Configure) -> None:
    """A tower out of stage clip, whose last layers LLaVA leaves behind, and a language model out of stage language."""
    clip, language = configure("clip", steps=1), configure("language", steps=1, seed=1)
    train(clip)
    whole = train(language)
    sources = {"vision": clip.out, "language": str(whole)}
    shape = {"start": None, "model": language.model, "tokenizer": language.tokenizer}
    model = prepare(configure("align", **shape, parts=sources)).model
    fresh = prepare(configure("align", **shape)).model
    taught = load(whole).model
    assert torch.equal(model.language.embed_tokens.weight, taught.language.embed_tokens.weight)
    assert not torch.equal(
        model.vision.state_dict()["embeddings.patch_embedding.weight"],
        fresh.vision.state_dict()["embeddings.patch_embedding.weight"],
    )
    assert torch.equal(model.projector.fc1.weight, fresh.projector.fc1.weight)


def test_a_run_may_start_from_a_run(configure: Configure) -> None:
    first = configure("align", steps=1)
    folder = train(first)
    again = prepare(configure("instruct", start=first.out)).model
    assert torch.equal(again.projector.fc1.weight, load(folder).model.projector.fc1.weight)


def test_fresh_parts_begin_anew(configure: Configure) -> None:
    start, fresh, same = (
        prepare(configure("align", fresh=parts)).model for parts in ([], ["projector"], ["projector"])
    )
    assert not torch.equal(start.projector.fc1.weight, fresh.projector.fc1.weight)
    assert torch.equal(fresh.projector.fc1.weight, same.projector.fc1.weight)
    assert torch.equal(start.language.embed_tokens.weight, fresh.language.embed_tokens.weight)
    assert not fresh.projector.fc1.bias.any()


def test_the_resize_mode_of_the_run_stays_in_its_model(configure: Configure) -> None:
    folder = train(configure("align", steps=1, resize_mode="square"))
    assert load(folder).config.resize_mode == "square"
    assert prepare(configure("align")).processor.config.resize_mode == "pad"


def test_a_model_that_sees_tiles_learns(configure: Configure) -> None:
    whole = configure("language")
    tiles = {"resize_mode": "anyres", "tiling": TilingConfig(pinpoints=[(28, 14), (14, 28)])}
    shape = {"start": None, "model": whole.model.model_copy(update=tiles), "tokenizer": whole.tokenizer}
    loaded = load(train(configure("align", steps=1, **shape)))
    assert loaded.config.tiling == tiles["tiling"]
    aligned = loaded.model.image_newline
    assert aligned.std() > 0.1
    start = {"start": configure("align").out}
    instructed = load(train(configure("instruct", steps=1, **start)))
    assert instructed.config == loaded.config
    assert not torch.equal(instructed.model.image_newline, aligned), "it learns with the language model"
    one_view = prepare(configure("instruct", resize_mode="pad", **start)).processor.config
    assert (one_view.resize_mode, one_view.tiling) == ("pad", tiles["tiling"])


def test_samples_are_cut_at_the_models_context(configure: Configure) -> None:
    assert prepare(configure("align")).dataset.max_length == 512
    assert prepare(configure("align", max_length=200)).dataset.max_length == 200
    with pytest.raises(TrainError, match="max_length is 513, but the model's context holds 512 tokens"):
        prepare(configure("align", max_length=513))


@pytest.mark.parametrize(
    ("stage", "changes", "sentence"),
    [
        ("align", {"data": ["none.json"]}, "none.json is no file; give a .json or .jsonl file"),
        ("align", {"start": "pockat"}, "'pockat' is neither a known model nor a folder; did you mean 'pocket'?"),
        ("align", {"parts": {"vision": "runs/none"}}, "parts.vision: there is no folder runs/none"),
        ("language", {"tokenizer": "none.json"}, "tokenizer: there is no file none.json"),
        ("align", {"device": "gpu"}, "device is 'gpu'; it may be auto, cpu, cuda or mps"),
        ("align", {"device": "meta"}, "device is 'meta', which this machine or this build of PyTorch does not have"),
    ],
)
def test_what_is_missing_is_named(stage: str, changes: dict[str, object], sentence: str, configure: Configure) -> None:
    with pytest.raises(ValueError) as caught:
        prepare(configure(stage, **changes))
    assert sentence in str(caught.value)


def test_an_unfinished_run_has_no_model_to_start_from(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text("stage: align\n")
    with pytest.raises(TrainError, match="the run in .*half is not finished"):
        prepare(configure("align", start=str(tmp_path / "half")))


def test_a_part_of_another_shape_is_refused(configure: Configure) -> None:
    clip = configure("clip", steps=1)
    train(clip)
    wide = clip.model.model_copy(update={"vision": clip.model.vision.model_copy(update={"hidden_size": 16})})
    config = configure("align", start=None, model=wide, tokenizer=clip.tokenizer, parts={"vision": clip.out})
    with pytest.raises(TrainError, match="parts.vision: in .* it has another shape: .* do not fit"):
        prepare(config)
