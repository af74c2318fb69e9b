"""Rotary positions as foreign configurations spell them, in our terms.

`rope_theta` beside `rope_scaling` until transformers 4, both in `rope_parameters` from 5 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llavakit.config import ConfigError, LanguageConfig

_LINEAR = {"factor": "factor"}
_LLAMA_3 = _LINEAR | {
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_positions",
}
_KINDS = {"default": None, "dynamic": None, "linear": _LINEAR, "llama3": _LLAMA_3}  # None: plain


def rope_fields(text: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The base and the scaling of a language model's section, as fields of `LanguageConfig`.

    Dynamic scaling begins where max_position_embeddings end, which is where our context ends: there it is nothing.
    Raises `ConfigError` for a kind that is not known.
    """
    for key in ("rope_parameters", "rope_scaling"):
        given = text.get(key)
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f"{where}{key} is {given!r}, and should be an object")
    key = "rope_parameters" if text.get("rope_parameters") else "rope_scaling"
    rope = text.get(key) or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in _KINDS:
        allowed = ", ".join(repr(known) for known in _KINDS)
        raise ConfigError(f"{where}{key} is of the kind {kind!r}, and only {allowed} are supported")
    if rope.get("partial_rotary_factor", text.get("partial_rotary_factor", 1.0)) != 1.0:
        raise ConfigError(f"{where}partial_rotary_factor is not 1, and only whole heads that turn are supported")
    theta = rope.get("rope_theta", text.get("rope_theta", 10000.0))
    fields = _KINDS[kind]
    if fields is None:
        return {"rope_theta": theta, "rope_scaling": None}
    rope = {"original_max_position_embeddings": text["max_position_embeddings"]} | dict(rope)
    scaling = {ours: rope[theirs] for theirs, ours in fields.items() if theirs in rope}
    return {"rope_theta": theta, "rope_scaling": {"kind": kind} | scaling}


def rope_keys(language: LanguageConfig) -> dict[str, Any]:
    """The same the other way, as transformers 4 spells it, which 5 reads too."""
    scaling = language.rope_scaling
    if scaling is None:
        return {"rope_theta": language.rope_theta}
    values = {theirs: getattr(scaling, ours) for theirs, ours in (_KINDS[scaling.kind] or {}).items()}
    return {"rope_theta": language.rope_theta, "rope_scaling": {"rope_type": scaling.kind} | values}
