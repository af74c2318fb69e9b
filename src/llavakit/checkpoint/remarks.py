"""What a foreign configuration has no key for, kept in it under a key of our own, so that nothing is lost on the way.

Other programs pass over a key they do not know. Only what changes no number of the model may stand there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llavakit.config import ConfigError, LlavaConfig

OUR_KEY = "llavakit"
_ALLOWED = ("template", "tokens.", "tiling.compat")


def remarks(config: LlavaConfig, read_back: LlavaConfig) -> dict[str, Any]:
    """What has to be added to `read_back`, which is what a foreign file says, to make it `config`.

    The template always stands there: foreign files leave it to guesses. Raises `ConfigError` naming every field that
    the foreign format cannot say.
    """
    ours, theirs = _flat(config.model_dump(mode="json")), _flat(read_back.model_dump(mode="json"))
    differing = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    if lost := [name for name in differing if not name.startswith(_ALLOWED)]:
        raise ConfigError("; ".join(f"{name} is {ours.get(name)!r}, and it can only be {theirs.get(name)!r} there"
                                    for name in lost))  # fmt: skip
    return _nested({name: ours[name] for name in sorted({"template", *differing})})


def with_remarks(config: LlavaConfig, file: Mapping[str, Any]) -> LlavaConfig:
    """What a foreign file says, corrected by our own key in it; raises `ConfigError` if that cannot be used."""
    added = file.get(OUR_KEY, {})
    if not isinstance(added, Mapping):
        raise ConfigError(f"{OUR_KEY} is {added!r}, and should be an object")
    if unknown := [name for name in _flat(added) if not name.startswith(_ALLOWED)]:
        raise ConfigError(f"{OUR_KEY} holds {', '.join(unknown)}, which does not belong there")
    return LlavaConfig.parse(_nested(_flat(config.model_dump(mode="json")) | _flat(added)))


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their dotted names; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, key = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[key] = value
    return nested
