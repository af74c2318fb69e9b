"""A tokenizer as transformers reads it: tokenizer.json, and beside it files that name its special tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.formats import TOKENIZER_FILE, TOKENIZER_SETTINGS_FILE
from llavakit.checkpoint.tokenizer_files import NAMES_FILE
from llavakit.config import SpecialTokens
from llavakit.processing.tokenizer import Tokenizer

IMAGE_TOKEN = "<image>"  # where the vocabulary has no word for a picture


@dataclass
class Vocabulary:
    """The content of a tokenizer.json, and what its tokens are spelt like."""

    spec: dict[str, Any]
    spellings: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        vocab = self.spec["model"]["vocab"]
        pieces = vocab.items() if isinstance(vocab, Mapping) else ((text, id) for id, (text, _) in enumerate(vocab))
        self.spellings = {id: text for text, id in pieces}
        self.spellings |= {token["id"]: token["content"] for token in self.spec["added_tokens"]}

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        return cls(json.loads(tokenizer.source))

    def special(self, name: str, id: int) -> str:
        """The spelling of a special token, which from now on is one wherever it stands in a text."""
        if id not in self.spellings:
            raise CheckpointError(f"tokens.{name} is {id}, and the tokenizer has no word of that id to be written")
        self._declare(id, self.spellings[id])
        return self.spellings[id]

    def placeholder(self, tokens: SpecialTokens) -> int:
        """The id of the word that stands for a picture: the model's own, or `<image>`, added where there is none."""
        if tokens.image in self.spellings:
            return tokens.image
        named = [id for id, text in self.spellings.items() if text == IMAGE_TOKEN]
        id = named[0] if named else max(self.spellings) + 1
        self.spellings[id] = IMAGE_TOKEN
        self._declare(id, IMAGE_TOKEN)
        return id

    def knows(self, id: int) -> bool:
        """Whether it is a token beside the words."""
        return any(token["id"] == id for token in self.spec["added_tokens"])

    def _declare(self, id: int, text: str) -> None:
        added = self.spec["added_tokens"]
        known = next((token for token in added if token["id"] == id), None)
        if known:
            known["special"] = True
            return
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added.append({"id": id, "content": text, **flags, "special": True})
        added.sort(key=lambda token: token["id"])

    def begins_with(self, bos: tuple[str, int] | None) -> None:
        """Put the begin token, or nothing, before every text that is encoded, and nothing behind it."""
        processor = self.spec.get("post_processor")
        steps = processor["processors"] if processor and processor["type"] == "Sequence" else [processor]
        steps = [step for step in steps if step and step["type"] not in ("TemplateProcessing", "BertProcessing")]
        if bos:
            steps.append(_beginning(*bos))
        self.spec["post_processor"] = {"type": "Sequence", "processors": steps} if steps else None

    def spell_as_before(self) -> None:
        """Spell out what version 0.15 of the library, with which the original code works, does not know otherwise."""
        model = self.spec["model"]
        pairs = [merge for merge in model.get("merges", []) if not isinstance(merge, str)]
        if pairs and not any(" " in part for pair in pairs for part in pair):
            model["merges"] = [" ".join(pair) for pair in pairs]
        splitter = self.spec.get("pre_tokenizer") or {}
        for step in splitter.get("pretokenizers", [splitter]):
            if step.get("type") == "Metaspace":
                step["add_prefix_space"] = step.get("prepend_scheme", "always") != "never"


def names_of(vocabulary: Vocabulary, tokens: SpecialTokens) -> dict[str, str]:
    """The special tokens under the names that transformers has for them."""
    named = {} if tokens.bos is None else {"bos_token": vocabulary.special("bos", tokens.bos)}
    named["eos_token"] = vocabulary.special("eos", tokens.eos)
    # Some models pad with an ordinary word, such as Qwen's "!"; declared special, it would vanish from answers.
    named["pad_token"] = vocabulary.spellings[tokens.pad] if vocabulary.knows(tokens.pad) else named["eos_token"]
    unknown = vocabulary.spec["model"].get("unk_token")
    return named | ({"unk_token": unknown} if isinstance(unknown, str) else {})


def write_tokenizer(
    folder: Path, vocabulary: Vocabulary, named: Mapping[str, str], settings: Mapping[str, Any]
) -> None:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    vocabulary.spec |= {"truncation": None, "padding": None}
    described = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in _added(vocabulary)}
    config = {"added_tokens_decoder": described, **named, "clean_up_tokenization_spaces": False, **settings}
    for name, data in (
        (TOKENIZER_FILE, vocabulary.spec),
        (TOKENIZER_SETTINGS_FILE, config),
        (NAMES_FILE, named),
    ):
        text = json.dumps(data, indent=2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _added(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    return vocabulary.spec["added_tokens"]


def _beginning(text: str, id: int) -> dict[str, Any]:
    token = {"SpecialToken": {"id": text, "type_id": 0}}
    one, other = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [token, one],
        "pair": [token, one, other],
        "special_tokens": {text: {"id": text, "ids": [id], "tokens": [text]}},
    }
