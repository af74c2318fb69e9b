"""Tokenizers in GGUF: the entries, and llama.cpp's way of joining by scores held against ours by a list."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from gguf import TokenType
from tokenizers import Regex, pre_tokenizers

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.gguf.tokenizer import vocabulary
from llavakit.config import SpecialTokens
from llavakit.processing.sentencepiece import read_model, tokenizer_json
from llavakit.processing.tokenizer import Tokenizer

TOKENS = SpecialTokens(bos=1, eos=2, pad=0)


@pytest.fixture(scope="module")
def llama(sentencepiece_file: Callable[..., bytes], llama_pieces: list[tuple[str, float, int]]) -> Callable[..., Any]:
    """The tokenizer.json of a vocabulary like Llama's, as plain data."""

    def made(*, legacy: bool = True) -> dict[str, Any]:
        model = read_model(sentencepiece_file(llama_pieces))
        return json.loads(tokenizer_json(model, legacy=legacy, bos="<s>", added={}))

    return made


def joined_by_scores(text: str, tokens: list[str], scores: list[float], kinds: list[int]) -> list[int]:
    """What llama.cpp does with a text: of all neighbours that make a token it joins the best, the left of equals."""
    ids = {token: id for id, token in enumerate(tokens)}
    parts = list(text.replace(" ", "\u2581"))
    while True:
        pairs = [
            (scores[ids[a + b]], -i) for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False)) if a + b in ids
        ]
        if not pairs:
            break
        i = -max(pairs)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    known: list[int] = []
    for part in parts:
        known += [ids[part]] if part in ids else [ids[f"<0x{byte:02X}>"] for byte in part.encode()]
    assert TokenType.BYTE in kinds
    return known


def test_byte_level(tokenizer: Tokenizer) -> None:
    said = vocabulary(tokenizer, 270)
    spec = json.loads(tokenizer.source)
    assert said.remarks == ()
    assert said.metadata["tokenizer.ggml.model"] == "gpt2"
    assert said.metadata["tokenizer.ggml.pre"] == "gpt-2"
    tokens, kinds = said.metadata["tokenizer.ggml.tokens"], said.metadata["tokenizer.ggml.token_type"]
    assert tokens[:5] == ["<pad>", "<s>", "</s>", "<image>", "!"]
    assert kinds[:5] == [TokenType.CONTROL] * 4 + [TokenType.NORMAL]
    assert tokens[264:] == [f"[PAD{id}]" for id in range(264, 270)]
    assert kinds[264:] == [TokenType.UNUSED] * 6
    assert {token: id for id, token in enumerate(tokens[:264])} == spec["model"]["vocab"]
    assert said.metadata["tokenizer.ggml.merges"] == [" ".join(pair) for pair in spec["model"]["merges"]]
    ids = {key: value for key, value in said.metadata.items() if key.endswith("_token_id")}
    assert ids == {
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
    }
    assert said.metadata["tokenizer.ggml.add_bos_token"] is True


def test_a_model_without_a_begin_token(tokenizer: Tokenizer) -> None:
    silent = Tokenizer(tokenizer.source, SpecialTokens(bos=None, eos=2, pad=0, image=3))
    metadata = vocabulary(silent, 264).metadata
    assert metadata["tokenizer.ggml.add_bos_token"] is False
    assert "tokenizer.ggml.bos_token_id" not in metadata


def test_several_tokens_that_end_an_answer(tokenizer: Tokenizer) -> None:
    several = Tokenizer(tokenizer.source, SpecialTokens(eos=2, also_ends=(0, 5, 9, 10), image=3))
    said = vocabulary(several, 264)
    assert said.metadata["tokenizer.ggml.eot_token_id"] == 0
    assert said.metadata["tokenizer.ggml.eom_token_id"] == 5
    tokens = said.metadata["tokenizer.ggml.tokens"]
    assert said.remarks == (f"llama.cpp may not end an answer at {tokens[9]!r}, {tokens[10]!r}",)


def with_words(tokenizer: Tokenizer, pattern: str, **model: Any) -> Tokenizer:
    """The tokenizer with words cut by another pattern."""
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    steps = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    spec = json.loads(tokenizer.source)
    spec["pre_tokenizer"] = json.loads(pre_tokenizers.Sequence(steps).__getstate__())
    spec["model"] |= model
    return Tokenizer(json.dumps(spec), tokenizer.tokens)


LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
LLAMA_3 = LETTERS + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_2 = LLAMA_3.replace("{1,3}", "")


def test_patterns_by_name(tokenizer: Tokenizer) -> None:
    llama_3 = with_words(tokenizer, LLAMA_3, ignore_merges=True)
    assert vocabulary(llama_3, 264).metadata["tokenizer.ggml.pre"] == "llama-bpe"
    assert vocabulary(with_words(tokenizer, QWEN_2), 264).metadata["tokenizer.ggml.pre"] == "qwen2"


def test_normal_forms_are_remarked(tokenizer: Tokenizer) -> None:
    spec = json.loads(tokenizer.source) | {"normalizer": {"type": "NFC"}}
    (remark,) = vocabulary(Tokenizer(json.dumps(spec), tokenizer.tokens), 264).remarks
    assert "does not compose letters with their accents" in remark


def test_merges_that_spell_special_tokens_are_not_written(tokenizer: Tokenizer) -> None:
    spec = json.loads(tokenizer.source)
    spec["model"]["vocab"] |= {"</": 264, "s>": 265}
    spec["model"]["merges"] = [["<", "/"], ["s", ">"], ["</", "s>"], *spec["model"]["merges"]]
    merges = vocabulary(Tokenizer(json.dumps(spec), tokenizer.tokens), 266).metadata["tokenizer.ggml.merges"]
    assert merges[:2] == ["< /", "s >"]
    assert "</ s>" not in merges


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda spec: spec["model"].update(merges=[]), "joins nothing"),
        (lambda spec: spec["model"].update(ignore_merges=True), "cuts a text into words by a pattern"),
        (lambda spec: spec["pre_tokenizer"].update(add_prefix_space=True), "cuts a text into words by a pattern"),
        (lambda spec: spec["pre_tokenizer"].update(use_regex=False), "cuts a text into words by a pattern"),
        (lambda spec: spec.update(normalizer={"type": "Lowercase"}), r"changes texts first \(Lowercase\)"),
    ],
)
def test_byte_level_ones_that_cannot_be_said(
    change: Callable[[dict], None], sentence: str, tokenizer: Tokenizer
) -> None:
    spec = json.loads(tokenizer.source)
    change(spec)
    with pytest.raises(CheckpointError, match=f"cannot be written as GGUF: it {sentence}"):
        vocabulary(Tokenizer(json.dumps(spec), tokenizer.tokens), 264)


@pytest.mark.parametrize("legacy", [True, False])
def test_sentencepiece(legacy: bool, llama: Callable[..., dict]) -> None:
    spec = llama(legacy=legacy)
    tokenizer = Tokenizer(json.dumps(spec), TOKENS)
    said = vocabulary(tokenizer, tokenizer.size + 2)
    tokens, kinds = said.metadata["tokenizer.ggml.tokens"], said.metadata["tokenizer.ggml.token_type"]
    assert said.metadata["tokenizer.ggml.model"] == "llama"
    assert said.metadata["tokenizer.ggml.unknown_token_id"] == 0
    assert said.metadata["tokenizer.ggml.add_space_prefix"] is True
    assert kinds[:4] == [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, TokenType.BYTE]
    assert (tokens[3], tokens[259], kinds[259]) == ("<0x00>", "\u2581t", TokenType.NORMAL)
    assert kinds[-2:] == [TokenType.UNUSED] * 2
    # Its pieces can spell these, and so can any text.
    assert "llama.cpp takes '<unk>', '<s>', '</s>' in what a user writes" in said.remarks[0]
    assert any("puts a space after every special token" in remark for remark in said.remarks) is not legacy

    rng = random.Random(0)
    alphabet = "abcdehiklmnorst the  é<>/0x:.!漢\n"
    for _ in range(400):
        text = "".join(rng.choices(alphabet, k=rng.randint(1, 30)))
        expected = joined_by_scores(" " + text, tokens, said.metadata["tokenizer.ggml.scores"], kinds)
        if any(spelt in text for spelt in ("<unk>", "<s>", "</s>")):
            continue
        assert tokenizer.tokenize(text) == expected, text


@pytest.mark.parametrize(
    ("scheme", "is_first", "num_remarks"), [("never", False, 1), ("always", True, 2), ("first", True, 3)]
)
def test_where_a_space_goes_first(scheme: str, is_first: bool, num_remarks: int, llama: Callable[..., dict]) -> None:
    """The step of newer tokenizers, which puts no space before a text that begins with one."""
    spec = llama()
    spec["normalizer"] = None
    spec["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": scheme,
        "split": False,
    }
    said = vocabulary(Tokenizer(json.dumps(spec), TOKENS), 400)
    assert said.metadata["tokenizer.ggml.add_space_prefix"] is is_first
    assert len(said.remarks) == num_remarks


def unlisted(spec: dict) -> None:
    spec["model"]["merges"] = [pair for pair in spec["model"]["merges"] if "".join(pair) != "\u2581the"]


def scattered(spec: dict) -> None:
    merges = spec["model"]["merges"]
    spec["model"]["merges"] = [merges[-1], *merges[:-1], merges[-1]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (unlisted, "does not join '\u2581th' and 'e', and llama.cpp would|does not join '\u2581t' and 'he'"),
        (scattered, "joins '.+' at two places of its list"),
        (lambda spec: spec["model"]["vocab"].pop("<0x0A>"), "falls back to 255 bytes, and llama.cpp needs all 256"),
        (lambda spec: spec["normalizer"]["normalizers"].append({"type": "NFKC"}), r"changes texts first \(NFKC\)"),
        (
            lambda spec: spec.update(
                pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": True}
            ),
            r"cuts texts first \(Metaspace\)",
        ),
    ],
)
def test_sentencepiece_ones_that_cannot_be_said(
    change: Callable[[dict], None], sentence: str, llama: Callable[..., dict]
) -> None:
    spec = llama()
    change(spec)
    with pytest.raises(CheckpointError, match=f"cannot be written as GGUF: it ({sentence})"):
        vocabulary(Tokenizer(json.dumps(spec), TOKENS), 400)


def test_added_tokens_that_are_no_specials(llama: Callable[..., dict]) -> None:
    spec = llama()
    size = len(spec["model"]["vocab"])
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    spec["added_tokens"].append({"id": size, "content": "<tool>", "special": False, **plain})
    assert vocabulary(Tokenizer(json.dumps(spec), TOKENS), size + 1).metadata["tokenizer.ggml.token_type"][-1] == (
        TokenType.USER_DEFINED
    )
