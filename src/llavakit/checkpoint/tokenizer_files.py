"""The tokenizer of a folder: tokenizer.json, or in its place the SentencePiece model of older folders.

A tokenizer.model is converted at every load, which takes a third of a second for the 32,000 pieces of Llama. What is
saved natively has a tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.formats import TOKENIZER_FILE, TOKENIZER_SETTINGS_FILE, read_optional
from llavakit.checkpoint.regular import check_regular, is_there
from llavakit.config import SpecialTokens
from llavakit.processing.sentencepiece import AddedToken, PieceType, SentencePieceModel, read_model, tokenizer_json
from llavakit.processing.tokenizer import Tokenizer

SENTENCEPIECE_FILE = "tokenizer.model"

# Files beside a tokenizer.model in which transformers keeps what the model does not say.
NAMES_FILE = "special_tokens_map.json"
_ADDED_FILE = "added_tokens.json"

_NAMED = ("unk_token", "bos_token", "eos_token", "pad_token", "additional_special_tokens")

# Published SentencePiece models stay below 5 MB, and a tokenizer.json below 35 MB.
_MAX_BYTES = {SENTENCEPIECE_FILE: 16 << 20, TOKENIZER_FILE: 64 << 20}


def read_tokenizer(folder: Path, tokens: SpecialTokens) -> Tokenizer:
    """The tokenizer of a folder in any format; raises `CheckpointError` naming the file and what is wrong."""
    for name, read in ((TOKENIZER_FILE, _json), (SENTENCEPIECE_FILE, _converted)):
        file = folder / name
        if is_there(file):
            try:
                return Tokenizer(read(file), tokens)
            except CheckpointError:
                raise
            except (ValueError, OSError) as error:
                raise CheckpointError(f"{file} cannot be used: {error}") from error
    raise CheckpointError(f"{folder} has no {TOKENIZER_FILE} and no {SENTENCEPIECE_FILE}")


def has_tokenizer(folder: Path) -> bool:
    return any(is_there(folder / name) for name in (TOKENIZER_FILE, SENTENCEPIECE_FILE))


def tokenizer_folder(folder: Path, base: Path | None) -> Path:
    """Where the tokenizer of a folder is: there, or where it has none, with its base."""
    return folder if base is None or has_tokenizer(folder) else base


def says_the_same(folder: Path, tokenizer: Tokenizer) -> bool:
    """Whether a folder has a tokenizer.model that gives every word the id that `tokenizer` gives it."""
    file = folder / SENTENCEPIECE_FILE
    if not is_there(file):
        return False
    converted = Tokenizer(_converted(file), tokenizer.tokens)
    ids = range(max(converted.size, tokenizer.size))
    return converted.prefix == tokenizer.prefix and all(
        converted.token_bytes(id) == tokenizer.token_bytes(id) for id in ids
    )


def _json(file: Path) -> str:
    check_regular(file, _MAX_BYTES[TOKENIZER_FILE])
    return file.read_text(encoding="utf-8")


def _converted(file: Path) -> str:
    """A tokenizer.model and the settings beside it as the content of a tokenizer.json."""
    check_regular(file, _MAX_BYTES[SENTENCEPIECE_FILE])
    settings, names, added = (
        read_optional(file.with_name(name)) for name in (TOKENIZER_SETTINGS_FILE, NAMES_FILE, _ADDED_FILE)
    )
    model = read_model(file.read_bytes())
    legacy = settings.get("legacy")
    return tokenizer_json(
        model,
        # Folders from before there were two ways do not say.
        legacy=True if legacy is None else bool(legacy),
        bos=_bos(model, settings, names),
        added=_added_tokens(model, settings, names, added),
    )


def _bos(model: SentencePieceModel, settings: Mapping[str, Any], names: Mapping[str, Any]) -> str | None:
    if not settings.get("add_bos_token", True):
        return None
    if named := settings.get("bos_token") or names.get("bos_token"):
        return _content(named)
    control = {piece.text for piece in model.pieces if piece.type == PieceType.CONTROL}
    return "<s>" if "<s>" in control else None


def _added_tokens(
    model: SentencePieceModel, settings: Mapping[str, Any], names: Mapping[str, Any], added: Mapping[str, Any]
) -> dict[str, AddedToken]:
    """What the folder says of single tokens: older files name special ones and list added ones, newer ones do both."""
    special = {content for source in (settings, names) for content in _named(source)}
    tokens = {piece.text: AddedToken(id, True) for id, piece in enumerate(model.pieces) if piece.text in special}
    tokens |= {_content(content): AddedToken(_id(id), content in special) for content, id in added.items()}
    decoder = settings.get("added_tokens_decoder") or {}
    if not isinstance(decoder, Mapping):
        raise CheckpointError(
            f"added_tokens_decoder in {TOKENIZER_SETTINGS_FILE} is {decoder!r}, and should be an object"
        )
    for id, token in decoder.items():
        content = _content(token)
        declared = isinstance(token, Mapping) and bool(token.get("special"))
        tokens[content] = AddedToken(_id(id), declared or content in special)
    return tokens


def _named(source: Mapping[str, Any]) -> list[str]:
    """Contents of the special tokens that a file names; whether they have an id stands elsewhere."""
    values = [source.get(name) for name in _NAMED]
    flat = [token for value in values for token in (value if isinstance(value, list) else [value])]
    return [_content(token) for token in flat if token is not None]


def _content(token: Any) -> str:
    """A token is written as its content or as an object with it."""
    content = token.get("content") if isinstance(token, Mapping) else token
    if not isinstance(content, str) or not content:
        raise CheckpointError(f"{token!r} stands beside a {SENTENCEPIECE_FILE} where a token should be")
    return content


def _id(value: Any) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise CheckpointError(
            f"{value!r} stands beside a {SENTENCEPIECE_FILE} where the id of a token should be"
        ) from None
