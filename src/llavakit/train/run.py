"""A recipe from its name to the trained model in its run folder."""

from __future__ import annotations

from pathlib import Path

import yaml

from llavakit.checkpoint.save import save
from llavakit.checkpoint.tensors import save_tensors
from llavakit.model.clip import Clip
from llavakit.train.config import TrainConfig
from llavakit.train.loop import fit
from llavakit.train.overrides import recipe_config
from llavakit.train.recipes import SEQUENCES
from llavakit.train.pocket import ensure_data
from llavakit.train.setup import Setup, prepare
from llavakit.train.state import TrainError

MAY_DIFFER = {"device", "precision", "threads", "workers", "save_every", "log_every", "micro_batch"}


def run(recipe: str, overrides: list[str]) -> Path:
    """Train a recipe, or a sequence of recipes, or the YAML file of an earlier run; returns the model's folder.

    A finished run is not repeated and an interrupted one goes on. Raises ValueError with a sentence for an unknown
    recipe or key, and `Interrupted` when asked to stop.
    """
    folder = Path()
    for name in SEQUENCES.get(recipe, (recipe,)):
        folder = train(recipe_config(name, overrides))
    return folder


def train(config: TrainConfig) -> Path:
    """Run one configuration in its folder, where `config.yaml` keeps it; returns the model's folder."""
    folder = Path(config.out)
    _claim(folder, config)
    ensure_data(config)
    setup = prepare(config)
    fit(setup, config)
    _save_model(setup, folder)
    return folder / "model"


def _claim(folder: Path, config: TrainConfig) -> None:
    """Write the configuration down, or check that it is the one of the run that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    path, data = folder / "config.yaml", config.model_dump(mode="json")
    if path.exists():
        before = TrainConfig.parse(yaml.safe_load(path.read_text())).model_dump(mode="json")
        changed = [key for key in data if data[key] != before[key] and key not in MAY_DIFFER]
        if changed:
            what = ", ".join(f"{key} was {before[key]!r} and is now {data[key]!r}" for key in changed)
            raise TrainError(f"{folder} holds a run with other settings: {what}; give another out= or remove it")
    path.write_text(yaml.safe_dump(data, sort_keys=False))


def _save_model(setup: Setup, folder: Path) -> None:
    """What the run made, in `folder`/model: a model to talk to, or after stage clip the weights alone."""
    if isinstance(setup.model, Clip):
        save_tensors(folder / "model" / "model.safetensors", setup.model.state_dict())
    else:
        save(setup.model, setup.processor.tokenizer, folder / "model")
