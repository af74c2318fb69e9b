"""What is changed in a tokenizer.json on its way out, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.export.tokenizer import Vocabulary
from llavakit.config import SpecialTokens
from llavakit.processing import Tokenizer


def reread(vocabulary: Vocabulary, tokens: SpecialTokens) -> Tokenizer:
    return Tokenizer(json.dumps(vocabulary.spec), tokens)


def test_a_picture_has_its_own_word_where_there_is_one(words: Tokenizer) -> None:
    vocabulary = Vocabulary.of(words)
    assert vocabulary.placeholder(words.tokens) == 3
    assert vocabulary.spec == json.loads(words.source)


def test_or_the_one_that_is_called_so(words: Tokenizer) -> None:
    assert Vocabulary.of(words).placeholder(SpecialTokens(image=5000)) == 3


def test_or_gets_one_behind_all_others(words: Tokenizer) -> None:
    spec = json.loads(words.source)
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["id"] != 3]
    spec["model"]["vocab"]["picture"] = spec["model"]["vocab"].pop("<image>")
    vocabulary = Vocabulary(spec)
    image = vocabulary.placeholder(SpecialTokens(image=5000))
    assert image == words.size
    ours = reread(vocabulary, SpecialTokens(image=image))
    assert ours.marker("<image>") == image and ours.size == words.size + 1
    assert ours.tokenize("a circle, is it?") == words.tokenize("a circle, is it?")


def test_a_token_without_a_spelling_is_an_error(words: Tokenizer) -> None:
    with pytest.raises(CheckpointError, match="tokens.eos is 5000, and the tokenizer has no word of that id"):
        Vocabulary.of(words).special("eos", 5000)


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (None, []),
        ({"type": "ByteLevel", "trim_offsets": False}, ["ByteLevel"]),
        ({"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}, []),
        ({"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing"}]}, ["ByteLevel"]),
    ],
)
def test_what_stands_before_a_text(before: dict[str, Any] | None, kept: list[str], words: Tokenizer) -> None:
    for bos, added in ((None, []), (("<s>", 1), ["TemplateProcessing"])):
        vocabulary = Vocabulary(json.loads(words.source) | {"post_processor": before})
        vocabulary.begins_with(bos)
        steps = (vocabulary.spec["post_processor"] or {"processors": []})["processors"]
        assert [step["type"] for step in steps] == kept + added


def test_older_libraries_get_their_spelling(words: Tokenizer) -> None:
    vocabulary = Vocabulary.of(words)
    vocabulary.spec["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Metaspace", "prepend_scheme": scheme} for scheme in ("first", "never")],
    }
    vocabulary.spell_as_before()
    assert vocabulary.spec["model"]["merges"] == [
        " ".join(pair) for pair in json.loads(words.source)["model"]["merges"]
    ]
    steps = vocabulary.spec["pre_tokenizer"]["pretokenizers"]
    assert [step["add_prefix_space"] for step in steps] == [True, False]
