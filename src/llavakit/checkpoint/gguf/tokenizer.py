"""A tokenizer as GGUF describes it: tokens, their kinds, and how llama.cpp is to join them.

llama.cpp has one algorithm for each of the family's two kinds of tokenizer. What it calls `gpt2` reads the merges of
a byte-level tokenizer and knows the patterns that cut a text into words by their names. What it calls `llama` joins
any two neighbours that make a token, the best score first, where a tokenizer.json has a list of pairs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf import TokenType

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.gguf.file import Value
from llavakit.processing.tokenizer import Tokenizer, usable_merges

# Patterns by llama.cpp's names for them, each with whether a word that is a token is taken without joining.
_GPT2 = "gpt2"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = {
    (_GPT2, False): "gpt-2",
    (_CONTRACTIONS + r"\p{N}{1,3}" + _REST, True): "llama-bpe",
    (_CONTRACTIONS + r"\p{N}" + _REST, False): "qwen2",
}

# GGUF's words for what ends an answer beside the end token: of a turn, of a message.
_ENDS = ("eot", "eom")


@dataclass(frozen=True)
class Vocabulary:
    """The entries of a GGUF file, and in which texts llama.cpp will see other tokens than we do."""

    metadata: dict[str, Value]
    remarks: tuple[str, ...] = ()


def vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """A tokenizer for `size` rows of embeddings; rows without a token become unused ones.

    Tokens beside the words are control tokens, or user-defined ones where they are not special: llama.cpp finds the
    latter in any text. Raises `CheckpointError` for a tokenizer that cannot be said in GGUF.
    """
    spec = json.loads(tokenizer.source)
    if spec["model"].get("type", "BPE") != "BPE":
        raise _refusal(f"is of type {spec['model']['type']}, and only BPE can be written")
    kind = _byte_level if spec["decoder"]["type"] == "ByteLevel" else _sentencepiece
    described = kind(spec, _pieces(spec, tokenizer, size))
    special = tokenizer.tokens
    ids = {"bos": special.bos, "eos": special.eos, "padding": special.pad}
    ids |= dict(zip(_ENDS, special.also_ends, strict=False))
    remarks = list(described.remarks)
    if unsaid := special.also_ends[len(_ENDS) :]:
        names = ", ".join(repr(described.metadata["tokenizer.ggml.tokens"][id]) for id in unsaid)
        remarks.append(f"llama.cpp may not end an answer at {names}")
    metadata: dict[str, Value] = {
        **described.metadata,
        **{f"tokenizer.ggml.{name}_token_id": id for name, id in ids.items() if id is not None},
        "tokenizer.ggml.add_bos_token": special.bos is not None,
        "tokenizer.ggml.add_eos_token": False,
    }
    return Vocabulary(metadata, tuple(remarks))


def _pieces(spec: Mapping[str, Any], tokenizer: Tokenizer, size: int) -> list[tuple[str, TokenType]]:
    """Every row's token and kind."""
    pieces = [(f"[PAD{id}]", TokenType.UNUSED) for id in range(size)]
    has_bytes, unknown = spec["model"].get("byte_fallback"), spec["model"].get("unk_token")
    for text, id in spec["model"]["vocab"].items():
        is_byte = has_bytes and len(text) == 6 and text.startswith("<0x")
        pieces[id] = (text, TokenType.BYTE if is_byte else TokenType.NORMAL)
    for token in spec["added_tokens"]:
        pieces[token["id"]] = (token["content"], TokenType.USER_DEFINED)
    for id, (text, kind) in enumerate(pieces):
        if text == unknown:
            pieces[id] = (text, TokenType.UNKNOWN)
        elif tokenizer.is_special(id) and kind != TokenType.UNUSED:
            pieces[id] = (text, TokenType.CONTROL)
    return pieces


def _tokens(model: str, pre: str, pieces: Sequence[tuple[str, TokenType]]) -> dict[str, Value]:
    return {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [text for text, _ in pieces],
        "tokenizer.ggml.token_type": [int(kind) for _, kind in pieces],
    }


def _byte_level(spec: Mapping[str, Any], pieces: Sequence[tuple[str, TokenType]]) -> Vocabulary:
    model = spec["model"]
    words = (_pattern(spec), bool(model.get("ignore_merges")))
    if words not in _WORDS:
        raise _refusal("cuts a text into words by a pattern that llama.cpp has no name for here")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _refusal("marks where words begin or end, which llama.cpp does not")
    merges = usable_merges(spec)
    if not merges:
        raise _refusal("joins nothing, and llama.cpp opens no byte-level tokenizer without merges")
    kinds = [step["type"] for step in _steps(spec.get("normalizer"), "normalizers")]
    if kinds not in ([], ["NFC"]):
        raise _refusal(f"changes texts first ({', '.join(kinds)}), which llama.cpp does not")
    joined = [f"{left} {right}" for left, right in merges]
    remarks = ("llama.cpp does not compose letters with their accents (NFC) first",) if kinds else ()
    return Vocabulary(
        {**_tokens("gpt2", _WORDS[words], pieces), "tokenizer.ggml.merges": joined},
        remarks,
    )


def _pattern(spec: Mapping[str, Any]) -> str | None:
    """By which pattern words are cut; None if not by one alone."""
    match _steps(spec.get("pre_tokenizer"), "pretokenizers"):
        case [{"type": "ByteLevel", "add_prefix_space": False, **rest}]:
            return _GPT2 if rest.get("use_regex", True) else None
        case [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return pattern
    return None


def _sentencepiece(spec: Mapping[str, Any], pieces: Sequence[tuple[str, TokenType]]) -> Vocabulary:
    num_bytes = sum(kind == TokenType.BYTE for _, kind in pieces)
    if num_bytes != 256:
        raise _refusal(f"falls back to {num_bytes} bytes, and llama.cpp needs all 256")
    prefix, is_plain = _prefix(spec)
    scores = _scores(spec, pieces)
    remarks = []
    if spelt := _spellable(pieces):
        remarks.append(f"llama.cpp takes {', '.join(map(repr, spelt[:5]))} in what a user writes for the token")
    if prefix == "first":
        remarks.append("llama.cpp puts a space after every special token too, and this tokenizer at the start alone")
    if not is_plain:
        remarks.append("llama.cpp puts a space before a text that begins with one too, and this tokenizer does not")
    metadata: dict[str, Value] = {
        **_tokens("llama", "default", pieces),
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.add_space_prefix": prefix != "never",
    }
    if unknown := [id for id, (_, kind) in enumerate(pieces) if kind == TokenType.UNKNOWN]:
        metadata["tokenizer.ggml.unknown_token_id"] = unknown[0]
    return Vocabulary(metadata, tuple(remarks))


def _prefix(spec: Mapping[str, Any]) -> tuple[str, bool]:
    """Where a text gets a space before it: `always`, `never`, or at the `first` one only; and whether in any case."""
    prefix, is_plain = "never", True
    for step in _steps(spec.get("normalizer"), "normalizers"):
        match step:
            case {"type": "Prepend", "prepend": "\u2581"}:
                prefix = "always"
            case {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}:
                pass
            case _:
                raise _refusal(f"changes texts first ({step['type']}), which llama.cpp does not")
    for step in _steps(spec.get("pre_tokenizer"), "pretokenizers"):
        match step:
            case {"type": "Metaspace", "split": False, "prepend_scheme": "never"}:
                pass
            case {"type": "Metaspace", "split": False, "prepend_scheme": "always" | "first" as scheme}:
                prefix = scheme
                is_plain = step["replacement"] == " "  # the step looks for its own sign at the start of the text
            case _:
                raise _refusal(f"cuts texts first ({step['type']}), and llama.cpp joins across spaces")
    return prefix, is_plain


def _scores(spec: Mapping[str, Any], pieces: Sequence[tuple[str, TokenType]]) -> list[float]:
    """A score for each token, by which llama.cpp joins in the same order; raises if there is no such score."""
    merges = usable_merges(spec)
    normal = {text for text, kind in pieces if kind == TokenType.NORMAL}
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        whole = left + right
        if whole in ranks and "".join(merges[rank - 1]) != whole:
            raise _refusal(f"joins {whole!r} at two places of its list, and in GGUF a token has one score")
        ranks.setdefault(whole, rank)
    listed = set(merges)
    for whole in normal:
        for pair in _cuts(whole):
            if pair not in listed and normal.issuperset(pair):
                raise _refusal(f"does not join {' and '.join(map(repr, pair))}, and llama.cpp would")
    return [-float(ranks.get(text, len(merges))) for text, _ in pieces]


def _spellable(pieces: Sequence[tuple[str, TokenType]]) -> list[str]:
    """Control and byte tokens that llama.cpp may join out of pieces of text."""
    normal = {text for text, kind in pieces if kind == TokenType.NORMAL}
    others = [text for text, kind in pieces if kind in (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.BYTE)]
    return [text for text in others if any(normal.issuperset(pair) for pair in _cuts(text))]


def _cuts(text: str) -> Iterator[tuple[str, str]]:
    return ((text[:cut], text[cut:]) for cut in range(1, len(text)))


def _steps(part: Mapping[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, whether it is a sequence or a single one."""
    if part is None:
        return []
    return part[inner] if part["type"] == "Sequence" else [dict(part)]


def _refusal(why: str) -> CheckpointError:
    return CheckpointError(f"the tokenizer cannot be written as GGUF: it {why}")
