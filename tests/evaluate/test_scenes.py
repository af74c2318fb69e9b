"""Reading the questions of a data set, and saying what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llavakit.data.records import DataError
from llavakit.evaluate.task import Question
from llavakit.evaluate.tasks.scenes import SCENES

Records = list[dict[str, Any]]


def test_every_round_but_talk_is_a_question(write_data: Callable[..., Path]) -> None:
    folder = write_data()
    read = SCENES.read(folder)
    assert (read.file, read.unscored) == (folder / "instruct-heldout.json", 1)
    assert [(q.id, q.kind, q.form, q.expected) for q in read.questions] == [
        ("sample-0/0", "existence", "word", "yes"),
        ("sample-0/2", "colour", "sentence", "red"),
        ("sample-1/0", "detail", "sentence", ("square",)),
        ("sample-2/0", "count", "word", "0"),
    ]
    assert read.questions[2] == Question(
        id="sample-1/0",
        picture=folder / "images" / "1.png",
        text="Describe the picture.",
        kind="detail",
        form="sentence",
        expected=("square",),
        reference="A blue square on a white background.",
        tags=("held-out wording", "held-out pair"),
    )
    assert read == SCENES.read(folder / "instruct-heldout.json")


def test_the_file_of_a_folder(write_data: Callable[..., Path], tmp_path: Path) -> None:
    write_data(name="captions-heldout.json")
    write_data(name="instruct-train.json")
    assert SCENES.read(tmp_path / "data").file.name == "instruct-train.json"
    write_data(name="instruct-heldout.json")
    assert SCENES.read(tmp_path / "data").file.name == "instruct-heldout.json"


def test_unclear_folders_are_refused(write_data: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no .* file; give a data set"):
        SCENES.read(tmp_path)
    with pytest.raises(DataError, match="nowhere is no file"):
        SCENES.read(tmp_path / "nowhere")
    write_data(name="instruct-a.json")
    write_data(name="instruct-b.json")
    with pytest.raises(DataError, match=r"several data sets \(instruct-a.json, instruct-b.json\); name the file"):
        SCENES.read(tmp_path / "data")


def test_bad_records_are_refused_by_name(write_data: Callable[..., Path], records: Records) -> None:
    def refusal(number: int, **changed: object) -> str:
        with pytest.raises(DataError) as refused:
            SCENES.read(write_data([*records[:number], records[number] | changed, *records[number + 1 :]]))
        return str(refused.value)

    assert refusal(0, kinds=["existence"]).startswith("sample 'sample-0' has no 'kinds' for each of its 3 rounds")
    assert "has no 'answers' for each of its 1 rounds" in refusal(1, answers="square")
    assert "'unseen_wording'" in refusal(1, unseen_wording=[])
    assert "round 0 of sample 'sample-2' is of the kind 'cuont'" in refusal(2, kinds=["cuont"])
    assert "did you mean 'count'?" in refusal(2, kinds=["cuont"])
    assert "the answer to a count question cannot be ['3']" in refusal(2, answers=[["3"]])
    assert "its own answer '0' does not come down to 'many'" in refusal(2, answers=["many"])
    assert "the answer to a detail question cannot be 'square'" in refusal(1, answers=["square"])
    assert "picture" in refusal(1, image="images/9.png") and "missing" in refusal(1, image="images/9.png")
    assert "asks about a picture, but the sample has no 'image'" in refusal(1, image=None)


def test_talk_alone_is_no_test(write_data: Callable[..., Path], records: Records) -> None:
    with pytest.raises(DataError, match="no question that can be scored, only talk"):
        SCENES.read(write_data([records[1] | {"kinds": ["talk"], "answers": [""]}]))


def test_records_without_kinds_say_what_writes_them(write_data: Callable[..., Path], records: Records) -> None:
    del records[0]["kinds"]
    with pytest.raises(DataError, match="`llava scenes --kind instruct --split heldout` writes such data"):
        SCENES.read(write_data(records))
