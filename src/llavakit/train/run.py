"""A recipe from its name to the trained model in its run folder."""

from __future__ import annotations

from pathlib import Path

import yaml

from llavakit.checkpoint.atomic import atomic_file
from llavakit.checkpoint.save import save
from llavakit.checkpoint.tensors import save_tensors
from llavakit.config import ConfigError
from llavakit.model.clip import Clip
from llavakit.train.config import TrainConfig, TrainError
from llavakit.train.loop import fit
from llavakit.train.overrides import recipe_config
from llavakit.train.pocket import ensure_data
from llavakit.train.progress import say
from llavakit.train.recipes import SEQUENCES
from llavakit.train.setup import WEIGHTS, Setup, prepare
from llavakit.train.state import checkpoints

MAY_DIFFER = {"device", "precision", "threads", "workers", "compile", "save_every", "log_every", "micro_batch"}


def run(recipe: str, overrides: list[str]) -> Path:
    """Train a recipe, or a sequence of recipes, or the YAML file of an earlier run; returns the model's folder.

    A finished run is not repeated and an interrupted one goes on. Raises ValueError with a sentence for an unknown
    recipe or key, and `Interrupted` when asked to stop.
    """
    configs = [recipe_config(name, overrides) for name in SEQUENCES.get(recipe, (recipe,))]
    if len({config.out for config in configs}) < len(configs):
        raise ConfigError(f"{recipe} is {len(configs)} runs, and each needs a folder of its own; leave out out=")
    return [train(config) for config in configs][-1]


def train(config: TrainConfig) -> Path:
    """Run one configuration in its folder, where `config.yaml` keeps it; returns the model's folder."""
    folder = Path(config.out)
    _claim(folder, config)
    model = folder / "model"
    if (model / WEIGHTS).is_file():  # written last, and only when the last step is done
        say(f"{folder} is finished; its model is in {model}. Remove the folder or give another out= to train anew.")
        return model
    ensure_data(config)
    setup = prepare(config)
    fit(setup, config)
    _save_model(setup, model)
    return model


def _claim(folder: Path, config: TrainConfig) -> None:
    """Write the configuration down, or check that it is the one of the run that is there."""
    path, data = folder / "config.yaml", config.model_dump(mode="json")
    if path.exists() and (checkpoints(folder) or (folder / "model").exists()):
        before = _written(path)
        changed = [key for key in data if data[key] != before[key] and key not in MAY_DIFFER]
        if changed:
            what = ", ".join(f"{key} was {before[key]!r} and is now {data[key]!r}" for key in changed)
            raise TrainError(f"{folder} holds a run with other settings: {what}; give another out= or remove it")
    with atomic_file(path) as partial:
        partial.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def _written(path: Path) -> dict:
    try:
        return TrainConfig.parse(yaml.safe_load(path.read_text(encoding="utf-8"))).model_dump(mode="json")
    except (ValueError, yaml.YAMLError) as error:
        raise TrainError(f"{path} is not the configuration of a run: {error}") from None


def _save_model(setup: Setup, folder: Path) -> None:
    """What the run made: a model to talk to, or after stage clip the weights alone."""
    if isinstance(setup.model, Clip):
        save_tensors(folder / WEIGHTS, setup.model.state_dict())
    else:
        save(setup.model, setup.processor.tokenizer, folder)
