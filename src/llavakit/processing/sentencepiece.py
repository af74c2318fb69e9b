"""A SentencePiece model (Kudo & Richardson 2018), the file tokenizer.model of Llama and Mistral, as a tokenizer.json.

SentencePiece keeps a vocabulary and a score for each piece, and joins the two neighbours whose whole scores best. The
`tokenizers` library keeps a list of pairs instead, and joins the pair that stands first. From the one follows the
other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from llavakit.processing.protobuf import BOOL, BYTES, FLOAT, MANY_BYTES, NUMBER, TEXT, Schema, parse
from llavakit.processing.tokenizer import TokenizerError

_SPACE = "\u2581"

# Published files stay far below: Llama's have 32,000 pieces of at most 16 characters and 60,000 merges. The limits
# keep a file that was made to hurt from taking all time and memory.
_MAX_PIECE = 256
_MAX_MERGES = 2_000_000

# The fields of sentencepiece_model.proto that say how text is cut.
_MODEL: Schema = {1: ("pieces", MANY_BYTES), 2: ("trainer", BYTES), 3: ("normalizer", BYTES)}
_PIECE: Schema = {1: ("text", TEXT), 2: ("score", FLOAT), 3: ("type", NUMBER)}
_TRAINER: Schema = {3: ("model_type", NUMBER), 24: ("whitespace_as_suffix", BOOL), 35: ("byte_fallback", BOOL)}
_NORMALIZER: Schema = {
    2: ("charsmap", BYTES),
    3: ("add_dummy_prefix", BOOL),
    4: ("remove_extra_whitespaces", BOOL),
    5: ("escape_whitespaces", BOOL),
}
_MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "character"}


class PieceType(IntEnum):
    """What a piece is: only normal ones are found in text, and bytes where no piece fits."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its place is its id."""

    text: str
    score: float = 0.0
    type: PieceType = PieceType.NORMAL


@dataclass(frozen=True)
class SentencePieceModel:
    """What a tokenizer.model says; `dummy_prefix` where a space is put before every text."""

    pieces: tuple[Piece, ...]
    byte_fallback: bool
    dummy_prefix: bool

    @property
    def unknown(self) -> str:
        """The piece that stands for what cannot be spelt."""
        return next(piece.text for piece in self.pieces if piece.type == PieceType.UNKNOWN)


@dataclass(frozen=True)
class AddedToken:
    """A token that no text can spell; a special one is left out of detokenized text."""

    id: int
    special: bool


def read_model(data: bytes) -> SentencePieceModel:
    """The content of a tokenizer.model; raises `TokenizerError` if it is not one, or one that cuts text otherwise."""
    if data.startswith(b"version https://git-lfs"):
        raise TokenizerError("This tokenizer.model is only a Git LFS pointer; run git lfs pull.")
    try:
        fields = parse(data, _MODEL)
        trainer = parse(fields.get("trainer", b""), _TRAINER)
        normalizer = parse(fields.get("normalizer", b""), _NORMALIZER)
        pieces = tuple(_piece(id, parse(piece, _PIECE)) for id, piece in enumerate(fields["pieces"]))
        if not pieces:
            raise ValueError("it has no pieces")
    except ValueError as error:
        raise TokenizerError(f"This is not a tokenizer.model that can be read: {error}.") from error
    model = SentencePieceModel(
        pieces, trainer.get("byte_fallback", False), dummy_prefix=normalizer.get("add_dummy_prefix", True)
    )
    _check_rules(trainer, normalizer)
    _check_pieces(model)
    return model


def tokenizer_json(
    model: SentencePieceModel,
    *,
    legacy: bool = True,
    bos: str | None = None,
    added: Mapping[str, AddedToken] | None = None,
) -> str:
    """The content of a tokenizer.json that cuts every text into the same ids.

    `legacy` is the older of the two ways in which the Llama tokenizer of transformers uses a model: it puts the space
    before a text after special tokens too, if the model wants one at all; the newer way puts it before the first text
    only, and always. `bos` begins every text, for programs that leave that to the file. `added` are tokens beside the
    pieces, or pieces declared special. Raises `TokenizerError` for added tokens whose ids do not follow the vocabulary,
    and a `bos` that is in neither.
    """
    vocab = {piece.text: id for id, piece in enumerate(model.pieces)}
    prefix = "first" if not legacy else "always" if model.dummy_prefix else "never"
    tokens = _added_tokens(model, added or {})
    if bos is not None and bos not in tokens:
        raise TokenizerError(f"The begin token {bos!r} is neither in the tokenizer.model nor an added token.")
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_declaration(text, token) for text, token in tokens.items()],
        "normalizer": _normalizer(prefix),
        "pre_tokenizer": _pre_tokenizer(prefix),
        "post_processor": None if bos is None else _post_processor(bos, tokens[bos].id),
        "decoder": _decoder(prefix),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": model.unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": model.byte_fallback,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": _merges(model.pieces),
        },
    }
    return json.dumps(spec, ensure_ascii=False)


def _piece(id: int, fields: dict[str, Any]) -> Piece:
    text, score, type = fields.get("text", ""), fields.get("score", 0.0), fields.get("type", PieceType.NORMAL)
    if not text:
        raise ValueError(f"piece {id} is empty")
    if not math.isfinite(score):
        raise ValueError(f"the score of piece {id} is {score}")
    try:
        piece = Piece(text, score, PieceType(type))
    except ValueError:
        raise ValueError(f"piece {id} is of type {type}, and there are 1 to 6") from None
    if piece.type == PieceType.NORMAL and len(text) > _MAX_PIECE:
        raise ValueError(f"piece {id} has {len(text)} characters, and at most {_MAX_PIECE} are read")
    return piece


def _check_rules(trainer: dict[str, Any], normalizer: dict[str, Any]) -> None:
    """Only text that is taken as it is can be cut into typed segments and tokenized one by one."""
    number = trainer.get("model_type", 1)
    model_type = _MODEL_TYPES.get(number, number)
    if model_type != "BPE":
        raise TokenizerError(
            f"This tokenizer.model is of type {model_type}, and only BPE is read, as Llama and Mistral have it; give a "
            "tokenizer.json in its place."
        )
    rules = {
        "maps characters to others": bool(normalizer.get("charsmap")),
        "removes extra spaces": normalizer.get("remove_extra_whitespaces", True),
        "leaves spaces unescaped": not normalizer.get("escape_whitespaces", True),
        "puts spaces behind words": trainer.get("whitespace_as_suffix", False),
    }
    broken = [rule for rule, holds in rules.items() if holds]
    if broken:
        raise TokenizerError(
            f"This tokenizer.model {' and '.join(broken)}, and only those are read that take text as it is, as Llama's "
            "and Mistral's do; give a tokenizer.json in its place."
        )


def _check_pieces(model: SentencePieceModel) -> None:
    by_type: dict[PieceType, set[str]] = {type: set() for type in PieceType}
    for piece in model.pieces:
        by_type[piece.type].add(piece.text)
    bytes_needed = {f"<0x{byte:02X}>" for byte in range(256)} if model.byte_fallback else set()
    damages = {
        "has a piece twice": len({piece.text for piece in model.pieces}) < len(model.pieces),
        "has not exactly one piece for the unknown": len(by_type[PieceType.UNKNOWN]) != 1,
        "has not the byte pieces <0x00> to <0xFF> if it falls back to bytes, and else none": (
            by_type[PieceType.BYTE] != bytes_needed
        ),
        # SentencePiece joins to such pieces and takes them apart again, which no list of merges can say.
        "has pieces marked unused": bool(by_type[PieceType.UNUSED]),
    }
    found = [damage for damage, holds in damages.items() if holds]
    if found:
        raise TokenizerError(
            f"This tokenizer.model {' and '.join(found)}; take the file from its source again, or give a "
            "tokenizer.json in its place."
        )


def _merges(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece, the best score first; of one piece's pairs that of the lowest ids.

    SentencePiece takes the leftmost of equal scores, which a list cannot say; in a trained vocabulary no two are equal.
    """
    ids = {piece.text: id for id, piece in enumerate(pieces) if piece.type == PieceType.NORMAL}
    merges: list[tuple[str, str]] = []
    for whole in sorted(ids, key=lambda text: -pieces[ids[text]].score):
        pairs = [(whole[:cut], whole[cut:]) for cut in range(1, len(whole))]
        known = [(left, right) for left, right in pairs if left in ids and right in ids]
        merges += sorted(known, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        if len(merges) > _MAX_MERGES:
            raise TokenizerError(
                f"The pieces of this tokenizer.model can be joined in more than {_MAX_MERGES:,} ways, far more than "
                "those of any language model; take the file from its source again."
            )
    return merges


def _added_tokens(model: SentencePieceModel, added: Mapping[str, AddedToken]) -> dict[str, AddedToken]:
    """All tokens that no text can spell, by id: pieces that are none of text, and those the folder adds."""
    in_model = {PieceType.UNKNOWN: True, PieceType.CONTROL: True, PieceType.USER_DEFINED: False}
    tokens = {
        piece.text: AddedToken(id, special=in_model[piece.type])
        for id, piece in enumerate(model.pieces)
        if piece.type in in_model
    }
    ids = {piece.text: id for id, piece in enumerate(model.pieces)}
    for text, token in sorted(added.items(), key=lambda item: item[1].id):
        free = len(ids)
        if token.id != ids.setdefault(text, free):
            raise TokenizerError(
                f"The added token {text!r} has id {token.id}, and should have {ids[text]}: the id it has in the "
                "tokenizer.model, or else the next free one."
            )
        tokens[text] = token
    return dict(sorted(tokens.items(), key=lambda item: item[1].id))


def _declaration(text: str, token: AddedToken) -> dict[str, Any]:
    exact = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token.id, "content": text, **exact, "special": token.special}


def _normalizer(prefix: str) -> dict[str, Any]:
    escape = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    steps = [{"type": "Prepend", "prepend": _SPACE}, escape] if prefix == "always" else [escape]
    return {"type": "Sequence", "normalizers": steps}


def _pre_tokenizer(prefix: str) -> dict[str, Any] | None:
    if prefix != "first":
        return None
    # The library's own step would put no prefix before a text that begins with a space, and SentencePiece does. By
    # then all spaces are escaped, so none is found, a plain one is put first, and the next step escapes it.
    metaspace = {"type": "Metaspace", "split": False}
    return {
        "type": "Sequence",
        "pretokenizers": [
            {**metaspace, "replacement": " ", "prepend_scheme": "first"},
            {**metaspace, "replacement": _SPACE, "prepend_scheme": "never"},
        ],
    }


def _post_processor(bos: str, id: int) -> dict[str, Any]:
    def begun(sequence: str, type_id: int) -> list[dict[str, Any]]:
        return [
            {"SpecialToken": {"id": bos, "type_id": type_id}},
            {"Sequence": {"id": sequence, "type_id": type_id}},
        ]

    return {
        "type": "TemplateProcessing",
        "single": begun("A", 0),
        "pair": begun("A", 0) + begun("B", 1),
        "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
    }


def _decoder(prefix: str) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix != "never":
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}
