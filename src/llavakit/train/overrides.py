"""key=value words and YAML files over a recipe."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import yaml

from llavakit.config import ConfigError, nearest
from llavakit.train.config import TrainConfig
from llavakit.train.recipes import RECIPES, SEQUENCES


def recipe_config(recipe: str, overrides: list[str]) -> TrainConfig:
    """The configuration of a named recipe or YAML file with `key=value` words applied, dots reaching inside.

    Raises `ConfigError` naming the nearest known recipe or key, or the settings that a recipe cannot do without.
    """
    changes = dict(_cut(word) for word in overrides)
    data = _from_file(Path(recipe)) if recipe.endswith((".yaml", ".yml")) else _from_recipe(recipe, changes)
    for key, value in changes.items():
        _set(data, key.split("."), _parse(key, value))
    return TrainConfig.parse(data)


def _cut(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f"{word!r} is no setting; write key=value, such as learning_rate=1e-3")
    return key, value


def _from_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} should hold key: value lines")
    return data


def _from_recipe(name: str, changes: dict[str, str]) -> dict[str, Any]:
    """A recipe's values; what its function asks for is what the user has to give."""
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}; {nearest(name, [*RECIPES, *SEQUENCES])}")
    required = list(inspect.signature(RECIPES[name]).parameters)
    missing = [f"{key}=" for key in required if not changes.get(key)]
    if missing:
        raise ConfigError(f"recipe {name} needs {' and '.join(missing)}, as in: llava train {name} {EXAMPLE}")
    return RECIPES[name](**{key: changes[key] for key in required}).model_dump(mode="json")


EXAMPLE = "start=pocket data=my/samples.json"


def _parse(key: str, value: str) -> Any:
    """A YAML value; 1e-3, which YAML takes for text, is a number here."""
    try:
        return float(value) if "e" in value.lower() else yaml.safe_load(value)
    except ValueError:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"{key}: cannot read {value!r} as a value; quote it, as in {key}='\"...\"'") from None


def _set(data: dict[str, Any], keys: list[str], value: Any) -> None:
    *parents, last = keys
    for parent in parents:
        if not isinstance(data.get(parent), dict):
            data[parent] = {}
        data = data[parent]
    data[last] = value
