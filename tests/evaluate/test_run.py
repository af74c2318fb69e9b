"""A whole test, from a model and a data set on disk to the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llavakit import circumstances
from llavakit.checkpoint.load import Loaded, load
from llavakit.cli.main import main
from llavakit.data.records import DataError
from llavakit.engine.reference import generate
from llavakit.engine.sampling import SamplingParams
from llavakit.evaluate.report import summarize
from llavakit.evaluate.run import MAX_TOKENS, choose, run
from llavakit.evaluate.task import Answer, Grade, Question
from llavakit.evaluate.tasks import TASKS
from llavakit.processing.conversation import Conversation
from llavakit.processing.image import open_image

SCENES = TASKS["scenes"]


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> Loaded:
    return load(model_folder)


def many(count: int) -> list[Question]:
    """Questions about pictures of three questions each, those of one picture apart from each other."""
    return [
        Question(f"{k}", Path(f"{k % (count // 3)}.png"), "Is it?", "existence", "word", "yes", "Yes")
        for k in range(count)
    ]


def test_without_a_limit_all_are_asked_picture_by_picture() -> None:
    chosen = choose(many(30), limit=None, seed=5)
    assert set(chosen) == set(many(30))
    assert [q.picture.stem for q in chosen] == [str(k // 3) for k in range(30)]


def test_limit_and_seed_choose_pictures() -> None:
    chosen = [choose(many(30), limit=7, seed=seed) for seed in (0, 0, 1)]
    assert [len(questions) for questions in chosen] == [7, 7, 7]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len({question.picture for question in chosen[0]}) == 3
    assert set(choose(many(30), limit=99, seed=3)) == set(many(30))


def test_the_report_of_a_run(loaded: Loaded, model_folder: Path, write_data: Callable[..., Path]) -> None:
    test = SCENES.read(write_data())
    seen: list[Answer] = []

    def watch(answers: Any, total: int) -> Any:
        assert total == 4
        for answer in answers:
            seen.append(answer)
            yield answer

    reports = [run(SCENES, test, loaded, folder=model_folder, limit=None, seed=0, watch=watch) for _ in range(2)]
    first, second = reports
    assert first["results"] == second["results"] == json.loads(json.dumps(first["results"]))
    assert [answer.question.kind for answer in seen[:4]] == ["existence", "colour", "detail", "count"]
    for answer in seen[:2]:  # each asked on its own, greedily: as the naive loop answers it
        asked = Conversation().ask(open_image(answer.question.picture), answer.question.text)
        params = SamplingParams(max_tokens=MAX_TOKENS)
        plain = generate(loaded.model, loaded.processor(asked), params, tokenizer_size=loaded.tokenizer.size)
        assert loaded.tokenizer.detokenize(plain).strip() == answer.given.strip()
    assert first["data"] | {"sha256": ""} == {
        "file": "instruct-heldout.json", "sha256": "", "questions": 4, "pictures": 3, "unscored": 1,
    }  # fmt: skip
    assert first["machine"]["threads"] >= 1 and first["versions"]["torch"] and first["command"]
    assert len(first["model"]["sha256"]) == 64


def answered(kind: str, form: str, *verdicts: tuple[bool, bool], expected: Any = "yes") -> list[Answer]:
    return [
        Answer(
            Question(f"{kind}/{k}", Path("a.png"), "Well?", kind, form, expected, "", ("odd" if k % 2 else "even",)),
            f"answer {k}",
            Grade(is_right, in_form, ("dog",) if isinstance(expected, tuple) and k == 0 else ()),
        )
        for k, (is_right, in_form) in enumerate(verdicts)
    ]


def test_what_is_no_file_is_no_part_of_the_weights(
    loaded: Loaded, model_folder: Path, write_data: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").symlink_to(model_folder / "model.safetensors")
    (tmp_path / "odd.safetensors").mkdir()
    report = run(
        SCENES, SCENES.read(write_data()), loaded, folder=tmp_path, limit=1, seed=0, watch=lambda seen, _: seen
    )
    assert report["model"]["sha256"] == circumstances.digest(model_folder / "model.safetensors")


def test_results_are_counted_by_kind_form_target_and_tag() -> None:
    answers = [
        *answered("existence", "word", (True, True), (False, True), (True, False), (True, True)),
        *answered("position", "sentence", (True, True), (True, True)),
        *answered("relation", "sentence", (False, True), (False, False)),
        *answered("count", "word", (True, True), expected="5"),
        *answered("count", "word", (False, True), expected="6"),
        *answered("detail", "sentence", (True, True), (True, True), expected=("cat",)),
    ]
    results = summarize(SCENES, answers)
    counted = {kind: (row["right"], row["n"]) for kind, row in results["kinds"].items()}
    assert counted == {"count": (1, 2), "detail": (2, 2), "existence": (3, 4), "position": (2, 2), "relation": (0, 2)}
    assert {row["name"]: (row["target"], row["right"], row["n"]) for row in results["targets"]} == {
        "existence": (93, 3, 4),
        "counts up to five": (80, 1, 1),
        "position and relation": (85, 2, 4),
        "captions that name every object": (75, 2, 2),
    }
    assert results["overall"]["n"] == 12 and results["overall"]["score"] == 66.7
    assert results["forms"]["word"]["kept"]["right"] == 5 and results["forms"]["sentence"]["kept"]["right"] == 5
    assert results["splits"]["odd"]["n"] + results["splits"]["even"]["n"] == 12
    assert results["faithful"]["right"] == 1 and results["faithful"]["n"] == 2
    assert results["wrong"]["existence"] == [
        {"id": "existence/1", "question": "Well?", "expected": "yes", "given": "answer 1"}
    ]
    assert "detail" not in results["wrong"]


def test_an_unreadable_picture_and_a_long_prompt_name_the_question(
    loaded: Loaded, model_folder: Path, write_data: Callable[..., Path]
) -> None:
    folder = write_data()
    test = SCENES.read(folder)
    (folder / "images" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="question 'sample-1/0': .*1.png"):
        run(SCENES, test, loaded, folder=model_folder, limit=None, seed=0, watch=lambda answers, total: answers)
    long = Question("long/0", folder / "images" / "0.png", "why " * 400, "existence", "word", "yes", "Yes")
    with pytest.raises(DataError, match="question 'long/0': The prompt is"):
        run(
            SCENES,
            type(test)(test.file, (long,)),
            loaded,
            folder=model_folder,
            limit=None,
            seed=0,
            watch=lambda answers, total: answers,
        )


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["/bin/llava", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


def test_the_command(
    model_folder: Path,
    write_data: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "reports" / "tiny.json"
    data = write_data()
    assert command(monkeypatch, model_folder, "--data", data, "--limit", 2, "--seed", 1, "--out", out) == 0
    shown = capsys.readouterr().out
    report = json.loads(out.read_text())
    assert "2 questions in" in shown and "aim" in shown
    assert report["asked"] == {"questions": 2, "limit": 2, "seed": 1, "max_tokens": MAX_TOKENS}
    assert report["command"].startswith("llava evaluate ") and "--seed 1" in report["command"]
    assert [path.name for path in out.parent.iterdir()] == ["tiny.json"]

    assert command(monkeypatch, model_folder, "--data", tmp_path / "nothing.json") == 1
    error = capsys.readouterr().err
    assert error.startswith("llava: ") and "nothing.json is no file" in error
