"""key=value words and YAML files over a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from llavakit.config import ConfigError, nearest
from llavakit.train.config import TrainConfig
from llavakit.train.recipes import RECIPES, SEQUENCES


def recipe_config(recipe: str, overrides: list[str]) -> TrainConfig:
    """The configuration of a named recipe or YAML file with `key=value` words applied, dots reaching inside.

    Raises `ConfigError` naming the nearest known recipe or key.
    """
    data = _base(recipe)
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is no setting; write key=value, such as learning_rate=1e-3")
        _set(data, key.split("."), _parse(value))
    return TrainConfig.parse(data)


def _base(recipe: str) -> dict[str, Any]:
    if recipe in RECIPES:
        return RECIPES[recipe]().model_dump(mode="json")
    if recipe.endswith((".yaml", ".yml")):
        if not Path(recipe).is_file():
            raise ConfigError(f"there is no file {recipe}")
        data = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ConfigError(f"{recipe} should hold key: value lines")
        return data
    raise ConfigError(f"there is no recipe {recipe!r}; {nearest(recipe, [*RECIPES, *SEQUENCES])}")


def _parse(value: str) -> Any:
    """A YAML value; 1e-3, which YAML takes for text, is a number here."""
    try:
        return float(value) if "e" in value.lower() else yaml.safe_load(value)
    except ValueError:
        return yaml.safe_load(value)


def _set(data: dict[str, Any], keys: list[str], value: Any) -> None:
    *parents, last = keys
    for parent in parents:
        if not isinstance(data.get(parent), dict):
            data[parent] = {}
        data = data[parent]
    data[last] = value
