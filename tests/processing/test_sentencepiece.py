"""A SentencePiece model read and converted: the same ids as SentencePiece's own rule, and text that stays text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.config import SpecialTokens
from llavakit.processing import Tokenizer, TokenizerError
from llavakit.processing.sentencepiece import (
    AddedToken,
    Piece,
    PieceType,
    SentencePieceModel,
    read_model,
    tokenizer_json,
)

LAW = settings(max_examples=40, deadline=None)  # no timed assertions

Pieces = list[tuple[str, float, int]]
Write = Callable[..., bytes]

SPACE = "\u2581"
TOKENS = SpecialTokens(bos=1, eos=2, pad=0, image=9999)
SPELLINGS = ["<s>", "</s>", "<unk>", "<0x0A>", " ", "  ", SPACE, "\n", "\t", "\x00", "a", "the ", "é", "😀", "你"]
TEXTS = st.lists(st.sampled_from(SPELLINGS) | st.text(max_size=4), max_size=8).map("".join)


@pytest.fixture(scope="module")
def model(sentencepiece_file: Write, llama_pieces: Pieces) -> SentencePieceModel:
    return read_model(sentencepiece_file(llama_pieces))


@pytest.fixture(scope="module")
def kinds(model: SentencePieceModel) -> dict[str, Tokenizer]:
    never = SentencePieceModel(model.pieces, byte_fallback=True, dummy_prefix=False)
    return {
        "legacy": Tokenizer(tokenizer_json(model), TOKENS),
        "new": Tokenizer(tokenizer_json(model, legacy=False), TOKENS),
        "no prefix": Tokenizer(tokenizer_json(never), TOKENS),
    }


def by_score(model: SentencePieceModel, text: str) -> list[int]:
    """SentencePiece's rule as it is stated: of all neighbours that make a piece join the best, of equals the first."""
    ids = {piece.text: id for id, piece in enumerate(model.pieces)}
    scores = {piece.text: piece.score for piece in model.pieces if piece.type == PieceType.NORMAL}
    parts = list(text.replace(" ", SPACE))
    while joins := [
        (scores[a + b], -at) for at, (a, b) in enumerate(zip(parts, parts[1:], strict=False)) if a + b in scores
    ]:
        at = -max(joins)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    spelt = [[part] if part in scores else [f"<0x{byte:02X}>" for byte in part.encode()] for part in parts]
    return [ids[part] for parts in spelt for part in parts]


def test_what_a_file_says(model: SentencePieceModel, llama_pieces: Pieces) -> None:
    assert [(piece.text, piece.score, piece.type) for piece in model.pieces] == llama_pieces
    assert model.byte_fallback and model.dummy_prefix
    assert model.unknown == "<unk>"


@given(text=TEXTS)
@LAW
def test_ids_are_those_of_the_stated_rule(model: SentencePieceModel, kinds: dict[str, Tokenizer], text: str) -> None:
    opened = by_score(model, " " + text) if text else []
    plain = by_score(model, text)
    found = {
        kind: [tokenizer.tokenize(text, after=after) for after in ("start", "special", "text")]  # type: ignore[arg-type]
        for kind, tokenizer in kinds.items()
    }
    assert found == {
        "legacy": [opened, opened, plain],
        "new": [opened, plain, plain],
        "no prefix": [plain, plain, plain],
    }


@st.composite
def vocabularies(draw: st.DrawFn) -> SentencePieceModel:
    """Letters a, b and the space, and pieces put together from them, in any order of scores."""
    texts = ["a", "b", SPACE]
    for _ in range(draw(st.integers(1, 20))):
        text = draw(st.sampled_from(texts)) + draw(st.sampled_from(texts))
        if len(text) < 9 and text not in texts:
            texts.append(text)
    ranks = draw(st.permutations(range(len(texts))))
    pieces = [Piece("<unk>", type=PieceType.UNKNOWN)]
    pieces += [Piece(text, -float(rank)) for text, rank in zip(texts, ranks, strict=True)]
    return SentencePieceModel(tuple(pieces), byte_fallback=False, dummy_prefix=False)


@given(model=vocabularies(), text=st.text(alphabet="ab ", max_size=14))
@LAW
def test_merges_follow_from_scores(model: SentencePieceModel, text: str) -> None:
    assert Tokenizer(tokenizer_json(model), TOKENS).tokenize(text) == by_score(model, text)


@pytest.mark.parametrize("kind", ["legacy", "new", "no prefix"])
@given(text=TEXTS, after=st.sampled_from(["start", "special", "text"]))
@LAW
def test_text_stays_text(kinds: dict[str, Tokenizer], kind: str, text: str, after: Any) -> None:
    tokenizer = kinds[kind]
    ids = tokenizer.tokenize(text, after=after)
    assert not any(tokenizer.is_special(id) for id in ids)
    spelt = b"".join(tokenizer.token_bytes(id) for id in ids).decode()
    text = text.replace(SPACE, " ")
    assert spelt in (text, " " + text)


@pytest.mark.parametrize("kind", ["legacy", "new", "no prefix"])
@given(text=TEXTS)
@LAW
def test_text_survives_the_way_there_and_back(kinds: dict[str, Tokenizer], kind: str, text: str) -> None:
    tokenizer = kinds[kind]
    assert tokenizer.detokenize(tokenizer.tokenize(text)) == text.replace(SPACE, " ")


@pytest.mark.parametrize("word", ["a" * 10_000, "the" * 10_000, " " * 10_000, "你" * 10_000])
def test_a_very_long_word(kinds: dict[str, Tokenizer], word: str) -> None:
    tokenizer = kinds["legacy"]
    assert tokenizer.detokenize(tokenizer.tokenize(word)) == word


def test_the_file_itself_begins_a_text_as_asked(model: SentencePieceModel) -> None:
    for bos, begin in (("<s>", [1]), (None, [])):
        source = tokenizer_json(model, bos=bos)
        library = tokenizers.Tokenizer.from_str(source)
        assert library.encode("the a").ids == begin + Tokenizer(source, TOKENS).tokenize("the a")


def test_added_tokens(model: SentencePieceModel) -> None:
    size = len(model.pieces)
    added = {
        "<im_end>": AddedToken(size + 1, special=True),
        "<im_start>": AddedToken(size, special=True),
        "stone": AddedToken(size + 2, special=False),
        "</s>": AddedToken(2, special=True),
        "th": AddedToken(260, special=True),
    }
    tokenizer = Tokenizer(tokenizer_json(model, added=added), TOKENS)
    assert tokenizer.size == size + 3
    assert tokenizer.detokenize([size, size + 1, size + 2], skip_special=False) == "<im_start><im_end>stone"
    assert tokenizer.detokenize([size, size + 1, size + 2]) == "stone"
    assert not set(tokenizer.tokenize("<im_start>stone the</s>")) & {2, 260, *range(size, size + 3)}


def test_pieces_defined_by_a_user_are_no_text(sentencepiece_file: Write, llama_pieces: Pieces) -> None:
    model = read_model(sentencepiece_file([*llama_pieces, ("<|user|>", 0.0, 4)]))
    tokenizer = Tokenizer(tokenizer_json(model), TOKENS)
    assert len(llama_pieces) not in tokenizer.tokenize("<|user|>")
    assert tokenizer.detokenize([len(llama_pieces)]) == "<|user|>"


@pytest.mark.parametrize("id", [0, 999])
def test_an_added_token_at_the_wrong_place_is_refused(model: SentencePieceModel, id: int) -> None:
    with pytest.raises(TokenizerError, match=f"'<pad>' has id {id}, and should have {len(model.pieces)}"):
        tokenizer_json(model, added={"<pad>": AddedToken(id, special=True)})


def test_a_begin_token_that_is_nowhere_is_refused(model: SentencePieceModel) -> None:
    with pytest.raises(TokenizerError, match="begin token '<bos>' is neither"):
        tokenizer_json(model, bos="<bos>")


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ([], "it has no pieces"),
        ([("<unk>", 0, 2), ("unk", 0, 2)], "not exactly one piece for the unknown"),
        ([("<unk>", 0, 2), ("a", 0, 1), ("a", -1, 1)], "a piece twice"),
        ([("<unk>", 0, 2), ("", 0, 1)], "piece 1 is empty"),
        ([("<unk>", 0, 2), ("a", float("nan"), 1)], "the score of piece 1 is nan"),
        ([("<unk>", 0, 2), ("a", 0, 7)], "piece 1 is of type 7"),
        ([("<unk>", 0, 2), ("a", 0, 5)], "pieces marked unused"),
        ([("<unk>", 0, 2), ("a" * 257, 0, 1)], "piece 1 has 257 characters"),
        ([("<unk>", 0, 2), ("<0x0A>", 0, 6)], "has not the byte pieces"),
        (
            [("a", 0, 1), *((f"<0x{byte:02X}>", 0, 6) for byte in range(255))],
            "for the unknown and has not the byte pieces",
        ),
    ],
)
def test_a_damaged_vocabulary_is_refused(sentencepiece_file: Write, pieces: Pieces, sentence: str) -> None:
    with pytest.raises(TokenizerError, match=sentence):
        read_model(sentencepiece_file(pieces))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trainer": {3: 1}}, "is of type unigram"),
        ({"trainer": {3: 4}}, "is of type character"),
        ({"trainer": {3: 9}}, "is of type 9"),
        ({"trainer": {24: 1}}, "puts spaces behind words"),
        ({"normalizer": {2: b"map"}}, "maps characters to others"),
        ({"normalizer": {4: 1}}, "removes extra spaces"),
        ({"normalizer": {4: 1, 5: 0}}, "removes extra spaces and leaves spaces unescaped"),
    ],
)
def test_a_model_that_changes_text_is_refused(
    sentencepiece_file: Write, llama_pieces: Pieces, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(TokenizerError, match=sentence):
        read_model(sentencepiece_file(llama_pieces, **changes))


def test_a_pointer_in_place_of_the_file_is_told() -> None:
    with pytest.raises(TokenizerError, match="run git lfs pull"):
        read_model(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 499723\n")


@given(data=st.data())
@LAW
def test_a_damaged_file_is_refused_or_read(
    sentencepiece_file: Write, llama_pieces: Pieces, data: st.DataObject
) -> None:
    """Cut short or with a byte changed: no other error than ours."""
    whole = sentencepiece_file(llama_pieces)
    cut = data.draw(st.integers(0, len(whole)))
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = [whole[:cut], whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]]
    for content in broken:
        try:
            Tokenizer(tokenizer_json(read_model(content)), TOKENS).tokenize("the </s> 😀")
        except TokenizerError as error:
            assert str(error).count("\n") == 0


def test_a_vocabulary_made_to_hurt_is_refused(monkeypatch: pytest.MonkeyPatch, model: SentencePieceModel) -> None:
    monkeypatch.setattr("llavakit.processing.sentencepiece._MAX_MERGES", 3)
    with pytest.raises(TokenizerError, match="in more than 3 ways"):
        tokenizer_json(model)


def test_a_published_pair_of_files_agrees(fixtures: Any) -> None:
    """Mistral's folder has both files: ours is theirs, but for how merges are spelt."""
    folder = fixtures / "tokenizers" / "mistral"
    theirs = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ours = json.loads(tokenizer_json(read_model((folder / "tokenizer.model").read_bytes()), bos="<s>"))
    assert [" ".join(merge) for merge in ours["model"].pop("merges")] == theirs["model"].pop("merges")
    assert ours["model"].pop("ignore_merges") is False
    assert ours == theirs


def test_ids_are_those_of_the_sentencepiece_library(fixtures: Any) -> None:
    library = pytest.importorskip("sentencepiece")
    data = (fixtures / "tokenizers" / "vicuna" / "tokenizer.model").read_bytes()
    oracle = library.SentencePieceProcessor(model_proto=data)
    tokenizer = Tokenizer(tokenizer_json(read_model(data)), TOKENS)
    for text in ["A chat.", "  two  spaces ", "Café – 你好, мир! 😀\tx²≠½\n", SPACE, "</s><0x0A>", "\x00\x7f"]:
        ids = tokenizer.tokenize(text)
        assert ids == oracle.encode(text)
        assert tokenizer.detokenize(ids) == oracle.decode(ids)
