"""Text to token ids and back, over the `tokenizers` library: strict about specials, exact about streaming.

Two kinds of tokenizer.json occur in the family. Byte-level ones (GPT-2, Qwen, our own) spell every token in a
256-letter alphabet; SentencePiece ones (Llama, Mistral) write a space as U+2581, put one before a text, and spell
rare characters in byte tokens such as <0x0A>. Here both become a table from token to bytes.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from llavakit.config import SpecialTokens

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"
_MAX_SIZE = 1 << 22  # the largest published vocabularies have a sixteenth of it


class TokenizerError(ValueError):
    """A tokenizer file that cannot be used; the message says why."""


class Tokenizer:
    """One vocabulary: text to ids and ids to text.

    Text is only ever text: a user who writes `<image>` or `</s>` gets the tokens of those characters. Special
    tokens are asked for by name.
    """

    def __init__(self, source: str, tokens: SpecialTokens) -> None:
        """From the content of a tokenizer.json; raises `TokenizerError` if it is not one, or of another kind."""
        try:
            spec = json.loads(source)
            self._opening = _backend(spec)
            self._byte_level, self._strips_space = _decoder_traits(spec)
            self._prefix = _prefix_scheme(spec)
            self._continuing = self._opening if self._prefix == "never" else _backend(_without_prefix(spec))
            self._list_tokens(spec, tokens)
        except TokenizerError:
            raise
        except BaseException as error:  # the library reports problems as bare Exceptions, and bad ones as panics
            if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
                raise
            raise TokenizerError(f"This is not a tokenizer.json that can be read: {error}.") from error
        self.tokens = tokens
        self._source = source

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[str, SpecialTokens]]:
        # The library's own copy would forget that text must not match special tokens.
        return Tokenizer, (self._source, self.tokens)

    @classmethod
    def load(cls, path: str | Path, tokens: SpecialTokens) -> Tokenizer:
        """From a tokenizer.json file; raises `TokenizerError` or OSError."""
        return cls(Path(path).read_text(encoding="utf-8"), tokens)

    def save(self, path: str | Path) -> None:
        """Write the tokenizer.json, unchanged from what was loaded."""
        Path(path).write_text(self._source, encoding="utf-8")

    @property
    def source(self) -> str:
        """The tokenizer.json, as it was loaded."""
        return self._source

    def special(self, name: Literal["bos", "eos", "pad", "image"]) -> int:
        """The id of a special token; raises ValueError if this model has none of that name."""
        id = getattr(self.tokens, name, None)
        if id is None:
            raise ValueError(f"This model has no special token {name!r}.")
        return id

    def marker(self, spelling: str) -> int | None:
        """The id of a token beside the words, such as <|im_start|>; None where this vocabulary has none."""
        return self._markers.get(spelling)

    @property
    def markers(self) -> tuple[str, ...]:
        """The spellings of all tokens beside the words."""
        return tuple(self._markers)

    def spelling(self, id: int | None) -> str:
        """How a token beside the words is spelt; empty for any other id."""
        return next((spelling for spelling, marker in self._markers.items() if marker == id), "")

    def tokenize(self, text: str, *, after: Literal["start", "special", "text"] = "start") -> list[int]:
        """Ids of a text, never a special one, and none added around it.

        `after` says what stands before: SentencePiece puts a space before the text that opens a prompt or follows
        a picture (`start`), in older tokenizers after a special token too (`special`), and never in the middle of
        a text (`text`).
        """
        opens = after == "start" or (after == "special" and self._prefix == "always")
        backend = self._opening if opens else self._continuing
        return backend.encode(text, add_special_tokens=False).ids

    def detokenize(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ids. Bytes that are not UTF-8 become U+FFFD, ids outside the vocabulary nothing."""
        stream = self.stream(skip_special=skip_special)
        return "".join([stream.put(id) for id in ids]) + stream.finish()

    def stream(self, *, skip_special: bool = True) -> TextStream:
        """Text of ids that come one by one."""
        return TextStream(self, skip_special)

    def token_bytes(self, id: int) -> bytes:
        """What a token adds to a text: part of a character, characters, or for a special token its name."""
        return self._bytes[id] if 0 <= id < self.size else b""

    def is_special(self, id: int) -> bool:
        """Whether a token stands for something else than text."""
        return id in self._specials

    @property
    def strips_space(self) -> bool:
        """Whether the first space of a text is one that `tokenize` put there."""
        return self._strips_space

    @property
    def prefix(self) -> Literal["never", "first", "always"]:
        """Where `tokenize` puts a space before a text: at the start only (`first`), or after special tokens too."""
        return self._prefix

    def _list_tokens(self, spec: dict[str, Any], tokens: SpecialTokens) -> None:
        """What every id stands for."""
        added = {token["id"]: token for token in spec["added_tokens"]}
        self._markers = {token["content"]: id for id, token in added.items()}
        pieces = self._opening.get_vocab(with_added_tokens=True)
        self.size = max(pieces.values(), default=-1) + 1
        if not 0 < self.size <= _MAX_SIZE:
            raise TokenizerError(f"This tokenizer.json has {self.size:,} ids, and 1 to {_MAX_SIZE:,} are read.")
        self._specials = {id for id, token in added.items() if token["special"]} | {id for _, id in tokens.ids}
        self._bytes = [b""] * self.size
        for piece, id in pieces.items():
            self._bytes[id] = piece.encode() if id in added else self._spell(piece)

    def _spell(self, piece: str) -> bytes:
        if self._byte_level:
            letters = [_BYTES_OF_LETTERS.get(letter) for letter in piece]
            return piece.encode() if None in letters else bytes(letters)
        if byte := _BYTE_TOKEN.fullmatch(piece):
            return bytes([int(byte[1], 16)])
        return piece.replace(_SPACE, " ").encode()


class TextStream:
    """The text of tokens as they come, without ever taking back a character.

    All that `put` and `finish` return, joined, is what `Tokenizer.detokenize` says of the same ids.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = tokenizer.strips_space

    def put(self, id: int) -> str:
        """What is certain after one more token; empty while a character is unfinished."""
        if self._skip_special and self._tokenizer.is_special(id):
            return ""
        data = self._tokenizer.token_bytes(id)
        if self._at_start and data:
            data, self._at_start = data.removeprefix(b" "), False
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What was held back: U+FFFD for a character that never became whole."""
        return self._decoder.decode(b"", final=True)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a byte-level BPE vocabulary (GPT-2's alphabet and word pattern); the same texts give the same one.

    The first ids are <pad> 0, <s> 1, </s> 2, <image> 3, then the 256 bytes, then merges; fewer than `vocab_size`
    tokens come out if the texts do not hold more. Raises ValueError for a vocabulary smaller than the first 260.
    """
    specials = ["<pad>", "<s>", "</s>", "<image>"]
    if vocab_size < len(specials) + 256:
        raise ValueError(f"A vocabulary of {vocab_size} is too small: special tokens and bytes alone are 260.")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend.to_str(pretty=True), SpecialTokens(pad=0, bos=1, eos=2, image=3))


def _letters_of_bytes() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes are themselves, the others follow from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTES_OF_LETTERS = _letters_of_bytes()


def _steps(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder, whether it is a sequence or a single one."""
    if part is None:
        return []
    return part[inner] if part["type"] == "Sequence" else [part]


def _decoder_traits(spec: dict[str, Any]) -> tuple[bool, bool]:
    """Whether tokens are spelt in GPT-2's byte alphabet, and whether the first space is taken off again."""
    steps = {step["type"]: step for step in _steps(spec.get("decoder"), "decoders")}
    if "ByteLevel" in steps:
        return True, False
    if "Metaspace" in steps:
        return False, _metaspace_scheme(steps["Metaspace"]) != "never"
    if "Replace" in steps:
        return False, "Strip" in steps
    raise TokenizerError(
        f"This tokenizer.json decodes by {', '.join(steps) or 'nothing'}; byte-level and SentencePiece are known."
    )


def _metaspace_scheme(step: dict[str, Any]) -> Literal["never", "first", "always"]:
    # Before prepend_scheme there was a plain yes or no.
    return step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")


def _prefix_scheme(spec: dict[str, Any]) -> Literal["never", "first", "always"]:
    """Where a text gets a space before it: `never`, at the `first` one only, or `always`."""
    if any(step["type"] == "Prepend" for step in _steps(spec.get("normalizer"), "normalizers")):
        return "always"
    for step in _steps(spec.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] == "Metaspace":
            return _metaspace_scheme(step)
    return "never"


def _without_prefix(spec: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer for text that continues other text."""
    normalizers = [step for step in _steps(spec.get("normalizer"), "normalizers") if step["type"] != "Prepend"]
    splitters = [
        {**{k: v for k, v in step.items() if k != "add_prefix_space"}, "prepend_scheme": "never"}
        if step["type"] == "Metaspace"
        else step
        for step in _steps(spec.get("pre_tokenizer"), "pretokenizers")
    ]
    return {
        **spec,
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splitters} if splitters else None,
    }


def usable_merges(spec: dict[str, Any]) -> list[tuple[str, str]]:
    """The pairs a tokenizer.json joins, best first, without those that would spell an added token or a byte token."""
    forbidden = {token["content"] for token in spec["added_tokens"]}
    pairs = (tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in spec["model"]["merges"])
    return [pair for pair in pairs if (whole := "".join(pair)) not in forbidden and not _BYTE_TOKEN.fullmatch(whole)]


def _backend(spec: dict[str, Any]) -> tokenizers.Tokenizer:
    """The library's tokenizer, without a way from text to an added token or a byte token.

    Added tokens are all declared special, since only special ones can be told not to match. Merges that would
    spell such a token out of its characters are left out.
    """
    added = [{**token, "special": True} for token in spec["added_tokens"]]
    model = spec["model"]
    if "merges" in model:
        model = {**model, "merges": usable_merges(spec)}
    backend = tokenizers.Tokenizer.from_str(json.dumps({**spec, "added_tokens": added, "model": model}))
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    return backend
