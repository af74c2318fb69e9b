"""`llava chat` under a pipe; the transcript it leaves is what a person would have seen."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llavakit.checkpoint.load import load
from llavakit.cli import talk
from llavakit.cli.talk import Talk
from llavakit.cli.terminal import stop_on_interrupt
from llavakit.engine.engine import Engine
from llavakit.engine.request import Event
from llavakit.engine.sampling import SamplingParams
from llavakit.processing.conversation import Conversation
from llavakit.processing.image import open_image

FIRST, SECOND = "What is it?", "What colour is it?"
PARAMS = SamplingParams(max_tokens=6)


@pytest.fixture
def chat(llava: Callable, model_folder: Path) -> Callable:
    def run(*lines: str, shown: Path | None = None, is_wrong: bool = False) -> tuple[list[str], str]:
        arguments = ["chat", *([shown] if shown else []), "--model", model_folder, "--max-tokens", 6, "--seed", 1]
        done = llava(*arguments, stdin="".join(line + "\n" for line in lines).encode())
        assert done.code == (1 if is_wrong else 0)
        turns = ("\n" + done.out).split("\n> ")
        return [turn.partition("\n")[2].removesuffix("\n") for turn in turns[1:]], done.err

    return run


@pytest.fixture
def said(model_folder: Path, picture: Path) -> tuple[str, str]:
    """What the engine itself answers to the first question, and then to the second."""
    engine = Engine(load(model_folder))
    asked = Conversation().ask(open_image(picture), FIRST)
    first = engine.generate(asked, PARAMS).text
    second = engine.generate(asked.answer(first).ask(SECOND), PARAMS).text
    return first, second


def test_a_conversation_remembers(chat: Callable, said: tuple[str, str], picture: Path) -> None:
    answers, notes = chat(FIRST, SECOND, "/exit", "never read", shown=picture)
    assert answers == [*said, ""]
    assert "60x40" in notes


def test_clear_forgets_but_keeps_the_picture(chat: Callable, said: tuple[str, str], picture: Path) -> None:
    answers, _ = chat(FIRST, "/clear", FIRST, SECOND, shown=picture)
    assert answers == [said[0], "", *said]


@pytest.mark.parametrize("spell", ["/image {}", "{}", "'{}'", '"{}"', "file://{url}", "{escaped}", "/image {escaped}"])
def test_a_dropped_picture_starts_anew(chat: Callable, said: tuple[str, str], picture: Path, spell: str) -> None:
    quoted = str(picture).replace("'", "'\\''") if spell == "'{}'" else str(picture)
    escaped = str(picture).replace(" ", "\\ ").replace("'", "\\'")
    url = str(picture).replace(" ", "%20")
    answers, _ = chat("Hello.", spell.format(quoted, escaped=escaped, url=url), *(FIRST, SECOND))
    assert answers[2:] == list(said)


def test_without_a_picture(chat: Callable, model_folder: Path) -> None:
    expected = Engine(load(model_folder)).generate(Conversation().ask("Hello."), PARAMS).text
    assert chat("Hello.")[0] == [expected]


def test_retry_replaces_the_answer(chat: Callable, picture: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.md"
    answers, _ = chat(FIRST, "/retry", f"/save {saved}", shown=picture)
    assert answers[1] != answers[0]
    assert saved.read_text() == (
        f"# A conversation with tiny\n\n![the picture](<{picture}>)\n\n**You:** {FIRST}\n\n**tiny:** {answers[1]}\n"
    )


def test_save_writes_over_nothing(chat: Callable, picture: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.md"
    held.write_text("mine")
    answers, notes = chat(FIRST, f"/save {held}", "/save", f"/save {tmp_path}/no/where", shown=picture, is_wrong=True)
    assert held.read_text() == "mine"
    assert str(held) in notes and "/save needs a path" in notes


def test_a_mistake_is_told_and_nothing_is_lost(chat: Callable, said: tuple[str, str], picture: Path) -> None:
    mistakes = ["/retry", "/save x", "/imge x", "/image", "/image nowhere.png", "why? " * 300, ""]
    answers, notes = chat(*mistakes, FIRST, "/image nowhere.png", SECOND, shown=picture, is_wrong=True)
    assert [answer for answer in answers if answer] == list(said)
    for told in (
        "no answer yet",
        "nothing has been said",
        "did you mean '/image'?",
        "needs the path",
        "nowhere.png",
        "context",
    ):
        assert told in notes


def test_help_names_every_command(chat: Callable) -> None:
    _, notes = chat("/help")
    for command in ("/image", "/clear", "/retry", "/save", "/exit", "Ctrl-C"):
        assert command in notes


class InterruptedEngine:
    """Presses Ctrl-C in the middle of its endless first answer."""

    def __init__(self) -> None:
        self.asked: list[Conversation] = []
        self.closed = 0

    def stream(self, conversation: Conversation, params: SamplingParams, *, template: str | None) -> Iterator[Event]:
        self.asked.append(conversation)
        return self._stream()

    def _stream(self) -> Iterator[Event]:
        try:
            yield Event("one")
            yield Event(" two")
            os.kill(os.getpid(), signal.SIGINT)
            while True:
                yield Event(" three")
        finally:
            self.closed += 1


def _talk(lines: list[str | type[BaseException]], engine: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_prompt: str) -> str:
        line = lines.pop(0)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr(talk, "read_line", read)
    Talk(engine, PARAMS, template=None, model_name="tiny").run()


def test_an_interrupt_stops_the_answer_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = InterruptedEngine()
    _talk(["Hi.", "And?", EOFError], engine, monkeypatch)
    assert capsys.readouterr().out == "one two\none two\n"
    assert engine.closed == 2
    assert engine.asked[1] == Conversation().ask("Hi.").answer("one two").ask("And?")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("first", ["Hi.", KeyboardInterrupt])
def test_a_second_interrupt_leaves(first: str | type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        _talk([first, KeyboardInterrupt, "never read"], InterruptedEngine(), monkeypatch)


def test_an_interrupt_long_ago_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [KeyboardInterrupt, "/help", KeyboardInterrupt, EOFError]
    _talk(lines, InterruptedEngine(), monkeypatch)
    assert not lines, "the talk went on to its end"


def test_two_interrupts_within_one_step_break_through() -> None:
    with pytest.raises(KeyboardInterrupt), stop_on_interrupt() as is_stopped:
        assert not is_stopped()
        os.kill(os.getpid(), signal.SIGINT)
        assert is_stopped()
        os.kill(os.getpid(), signal.SIGINT)
