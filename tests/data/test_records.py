"""The LLaVA JSON schema: what is read, and a sentence for everything that cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llavakit.data.records import DataError, read_records

Write = Callable[..., Path]


def sample(*values: str, **extra: Any) -> dict[str, Any]:
    speakers = ("human", "gpt")
    turns = [{"from": speakers[at % 2], "value": value} for at, value in enumerate(values)]
    return {"id": "s1", "conversations": turns, **extra}


def test_a_sample_is_read(write: Write) -> None:
    path = write(sample("What?\n<image>", "Red.", "Sure?", "Yes.", image="a.png", source="mine"))
    (record,) = read_records([path])
    assert (record.id, record.image, record.picture_turn) == ("s1", path.parent / "a.png", 0)
    assert record.turns == (("human", "What?"), ("gpt", "Red."), ("human", "Sure?"), ("gpt", "Yes."))
    assert record.extra == {"source": "mine"}


def test_the_picture_may_come_later_or_without_a_marker(write: Write) -> None:
    path = write(sample("Hi", "Hello", "<image> What?", "Red.", image="a.png"), sample("What?", "Red.", image="a.png"))
    assert [record.picture_turn for record in read_records([path])] == [2, 0]


def test_a_marker_is_text_where_there_is_no_picture_or_the_assistant_speaks(write: Write) -> None:
    path = write(sample("What does <image> mean?", "A tag."), sample("<image>Say it.", "<image>", image="a.png"))
    tag, said = read_records([path])
    assert tag.turns[0][1] == "What does <image> mean?"
    assert said.turns[1][1] == "<image>"


def test_lines_files_and_folders(write: Write, tmp_path: Path) -> None:
    """JSONL may hold any character within a line; a byte-order mark is no content; ids may be left out."""
    lines = write(sample("one\u2028two\x85three", "yes"), {**sample("a", "b"), "id": 7}, name="lines.jsonl")
    lines.write_text("\n" + lines.read_text(encoding="utf-8") + "\n\n", encoding="utf-8")
    nameless = sample("a", "b", image="a.png")
    del nameless["id"]
    (tmp_path / "elsewhere").mkdir()
    marked = tmp_path / "elsewhere" / "marked.json"
    marked.write_text(json.dumps([nameless]), encoding="utf-8-sig")
    records = read_records([lines, marked], images=tmp_path)
    assert [record.id for record in records] == ["s1", "7", "0"]
    assert records[0].turns[0][1] == "one\u2028two\x85three"
    assert records[2].image == tmp_path / "a.png"


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (sample("a", "b", image="b.png"), "b.png is missing; restore it or take the sample out"),
        (sample("a", "b", image="no/b.png"), "no/b.png is missing"),
        (sample("a", "b", image=["a.png"]), "'image' should be the path of one picture, not ['a.png']"),
        (sample("a", "b", image=""), "'image' should be the path of one picture, not ''"),
        (sample("<image>", "b", "<image>", "c", image="a.png"), "2 <image> markers for one picture"),
        (sample("<image><image>", "b", image="a.png"), "2 <image> markers for one picture"),
        (sample("a", "b", "c"), "the last turn is the human's, so there is no answer to learn"),
        (sample("a"), "'conversations' should be a list of turns, a human's and then gpt's"),
        (sample("a", ""), "its answers are empty, so there is no word to learn"),
        (sample("a", " \n", "b", "\t"), "its answers are empty, so there is no word to learn"),
        ({"id": "s1"}, "'conversations' should be a list of turns"),
        ({"id": "s1", "conversations": "a"}, "'conversations' should be a list of turns"),
        ({"id": "s1", "conversations": ["a", "b"]}, "turn 0 should be {'from': 'human', 'value': text}, not 'a'"),
        (
            {"id": "s1", "conversations": [{"from": "system", "value": "a"}, {"from": "gpt", "value": "b"}]},
            "turn 0 should be {'from': 'human', 'value': text}, not {'from': 'system', 'value': 'a'}",
        ),
        (
            {"id": "s1", "conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]},
            "turn 1 should be {'from': 'gpt', 'value': text}",
        ),
        (
            {"id": "s1", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": None}]},
            "turn 1 should be {'from': 'gpt', 'value': text}",
        ),
    ],
)
def test_a_malformed_sample_is_named(bad: dict[str, Any], sentence: str, write: Write) -> None:
    path = write({**sample("a", "b"), "id": "good"}, bad)
    with pytest.raises(DataError) as caught:
        read_records([path])
    assert str(caught.value).startswith(f"sample 's1' of {path}: ")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.json", "[{", "a.json is not valid JSON"),
        ("a.jsonl", '{"id": 1}\n{"id"', "line 2 of .*a.jsonl is not valid JSON"),
        ("a.json", "{}", "should hold a list of samples, and at least one"),
        ("a.json", "[]", "should hold a list of samples, and at least one"),
        ("a.jsonl", "\n", "should hold a list of samples, and at least one"),
        ("a.json", '["a"]', "sample 0 of .*a.json is no object with 'conversations'"),
    ],
)
def test_a_malformed_file_is_named(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_records([tmp_path / name])


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for path, sentence in ((tmp_path / "bytes.json", "is not UTF-8 text"), (tmp_path, "is no file")):
        with pytest.raises(DataError, match=sentence):
            read_records([path])
