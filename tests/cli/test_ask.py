"""`llava ask` prints what the engine says, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llavakit import config
from llavakit.checkpoint.formats import read_chat_template
from llavakit.checkpoint.load import load
from llavakit.cli import options
from llavakit.engine.engine import Engine
from llavakit.engine.sampling import SamplingParams
from llavakit.processing.conversation import Conversation
from llavakit.processing.image import open_image
from llavakit.processing.jinja import JinjaTemplate

QUESTION = "What colour is it?"


@pytest.fixture
def ask(llava: Callable, model_folder: Path, picture: Path) -> Callable:
    return lambda *options, shown=picture, **kwargs: llava(
        "ask", shown, QUESTION, "--model", model_folder, "--max-tokens", 8, *options, **kwargs
    )


def test_answer_alone_on_standard_output(ask: Callable, model_folder: Path, picture: Path) -> None:
    conversation = Conversation().ask(open_image(picture), QUESTION)
    expected = Engine(load(model_folder)).generate(conversation, SamplingParams(max_tokens=8))
    run = ask()
    assert (run.code, run.out, run.err) == (0, expected.text + "\n", "")
    assert ask("--device", "cpu", "--dtype", "float32").out == run.out


def test_json_is_one_object_that_counts(ask: Callable) -> None:
    run = ask("--json")
    answer = json.loads(run.out)
    assert list(answer) == ["text", "prompt_tokens", "tokens", "image_tokens", "finish_reason", "timings"]
    assert answer["text"] + "\n" == ask().out
    assert answer["image_tokens"] == 4 and len(answer["prompt_tokens"]) > 4 and len(answer["tokens"]) <= 8
    assert answer["finish_reason"] in ("stop", "length")
    assert answer["timings"]["first_token_ms"] > 0


def test_picture_from_standard_input(ask: Callable, picture: Path) -> None:
    assert ask(shown="-", stdin=picture.read_bytes()).out == ask().out


def test_a_seed_repeats_what_is_drawn(ask: Callable) -> None:
    drawn = [ask("--temperature", 2, "--top-p", 0.99, "--top-k", 200, "--seed", seed).out for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_template_by_name(ask: Callable) -> None:
    assert ask("--template", "vicuna_v1").out == ask().out
    run = ask("--template", "vicuna_v2")
    assert run.code == 1 and "vicuna_v1" in run.err


def test_a_template_is_checked_before_anything_is_opened(
    ask: Callable, llava: Callable, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was opened")

    monkeypatch.setattr("llavakit.cli.opening.load", refuse)
    for command in (("ask", "no.png", "What?"), ("chat",)):
        wrong = llava(*command, "--model", model_folder, "--template", "vicunna_v1")
        assert wrong.code == 1 and wrong.err.count("\n") == 1 and "did you mean 'vicuna_v1'?" in wrong.err
        native = llava(*command, "--model", model_folder, "--template", "jinja")
        assert native.code == 1 and native.err.count("\n") == 1 and "no chat template of its own" in native.err


def test_the_models_own_chat_template_where_it_is_asked_for(llava: Callable, picture: Path, fixtures: Path) -> None:
    folder = fixtures / "hf" / "checkpoints" / "llava-qwen2"
    options = ("ask", picture, QUESTION, "--model", folder, "--max-tokens", 4, "--json")
    answer = json.loads(llava(*options, "--template", "jinja").out)
    loaded = load(folder)
    template = JinjaTemplate(read_chat_template(folder))
    conversation = Conversation().ask(open_image(picture), QUESTION)
    expected = Engine(loaded).generate(conversation, SamplingParams(max_tokens=4), template=template)
    assert answer["tokens"] == list(expected.tokens) and answer["prompt_tokens"] == list(expected.prompt_tokens)
    assert len(json.loads(llava(*options).out)["prompt_tokens"]) > len(answer["prompt_tokens"]), (
        "no system prompt there"
    )


def test_mistakes_are_one_sentence(
    ask: Callable, llava: Callable, model_folder: Path, picture: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:60])
    for run, named in (
        (ask(shown=tmp_path / "none.png"), "none.png"),
        (ask(shown=broken), "broken.png"),
        (ask(shown="-"), "empty"),
        (ask("--top-p", 0), "top_p"),
        (ask("--device", "mps"), "mps"),
        (llava("ask", picture, "What?", "--model", "pockte"), "pocket"),
        (llava("ask", picture, "What? " * 400, "--model", model_folder), "context"),
    ):
        assert run.code == 1 and run.out == "", run
        assert named in run.err and run.err.startswith("llava: ") and run.err.count("\n") == 1, run.err


def test_traceback_on_request(ask: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVAKIT_TRACEBACK", "1")
    with pytest.raises(ValueError, match="none.png"):
        ask(shown=tmp_path / "none.png")


def test_wrong_usage_exits_2(ask: Callable, llava: Callable) -> None:
    for run in (
        ask("--temperature", -1),
        ask("--nonsense"),
        ask("--device", "tpu"),
        llava("ask"),
        llava("aks"),
        llava("ask", "a.png", " "),
    ):
        assert run.code == 2 and run.out == "" and run.err


def test_fewer_visual_tokens(ask: Callable) -> None:
    whole = json.loads(ask("--json").out)
    for count, method in ((1, "attention"), (3, "attention"), (1, "pool")):
        answer = json.loads(ask("--json", "--visual-tokens", count, "--visual-method", method).out)
        assert answer["image_tokens"] == count
        assert len(answer["prompt_tokens"]) == len(whole["prompt_tokens"]) - 4 + count
    everything = json.loads(ask("--json", "--visual-tokens", 4).out)
    assert everything["tokens"] == whole["tokens"]
    for count in (2, 4):
        later = json.loads(ask("--json", "--visual-tokens", count, "--after-layer", 1).out)
        assert later["image_tokens"] == 4 and later["prompt_tokens"] == whole["prompt_tokens"]
    assert later["tokens"] == whole["tokens"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--visual-tokens", 5), "5 visual tokens are more than the 4 patches of a view: ask for 1 to 4"),
        (("--visual-tokens", 2, "--visual-method", "pool"), "pooling gives 4, 1; use one of these, or method"),
        (("--visual-method", "pool"), "--visual-method pool needs --visual-tokens"),
        (("--after-layer", 1), "--after-layer 1 needs --visual-tokens"),
        (("--visual-tokens", 2, "--after-layer", 9), "nothing reads what is left: drop visual tokens after layer 1"),
        (("--visual-tokens", 4, "--visual-method", "pool", "--after-layer", 1), "leave out one of the two"),
        (("--visual-tokens", 0), "Input should be greater than or equal to 1"),
        (("--visual-tokens", 2, "--visual-method", "pol"), "'attention', 'pool'"),
    ],
)
def test_visual_tokens_that_cannot_be(ask: Callable, options: tuple, said: str) -> None:
    run = ask(*options)
    assert run.code == (2 if "equal to 1" in said or "'attention', " in said else 1) and not run.out
    assert said in " ".join(run.err.split())


def test_the_methods_are_spelt_once_more_and_alike() -> None:
    assert options.VisualMethod == config.VisualMethod
