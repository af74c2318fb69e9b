"""How a foreign checkpoint was trained to be spoken to, told from what it holds: one choice for every format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llavakit.processing.templates import TEMPLATES

_BY_LANGUAGE = {"llama": "vicuna_v1", "mistral": "mistral_instruct", "qwen2": "qwen_1_5"}
# Llamas that are no Vicuna, by the words of their vocabulary: Yi and Llama 3.
_BY_WORDS = {64000: "chatml_direct", 128256: "llava_llama_3"}
_PADDING = 64  # llava-hf adds a few words and fills up to a multiple of this


def spoken_to(language: Mapping[str, Any], chat_template: str = "") -> str:
    """The name of the template for a language model's section as `read_language` gives it.

    A `chat_template` made for the whole checkpoint is a witness where several templates were trained on one language
    model (BakLLaVA is a Mistral that speaks like Vicuna): it is looked at, never run, and its details are not followed.
    """
    words = language["vocab_size"]
    by_words = [name for count, name in _BY_WORDS.items() if count <= words <= count + _PADDING]
    expected = [*by_words, _BY_LANGUAGE[language["model_type"]]][0]
    written = [name for name in (expected, *_BY_LANGUAGE.values()) if _mark(name) in chat_template]
    return written[0] if written else expected


def _mark(name: str) -> str:
    """What a Jinja template has to spell out if it writes turns like the template of that name."""
    template = TEMPLATES[name]
    return template.markers[0] if template.markers else template.assistant.strip()
