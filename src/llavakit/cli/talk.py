"""The conversation behind `llava chat`: what was said so far, and the commands that change it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from PIL import Image
from rich.console import Console

from llavakit.cli.dropped import dropped_path
from llavakit.cli.terminal import read_line, stop_on_interrupt
from llavakit.config import nearest
from llavakit.engine.engine import Engine
from llavakit.engine.sampling import SamplingParams
from llavakit.processing.conversation import Conversation, Text
from llavakit.processing.image import open_image
from llavakit.processing.jinja import JinjaTemplate

PROMPT = "> "
HELP = """\
/image PATH  look at another picture, and start anew; a file dropped on the terminal does the same
/clear       forget what was said; the picture stays
/retry       answer the last question again
/save PATH   write the conversation to a new text file (Markdown)
/help        this list
/exit        leave; so does Ctrl-D
Ctrl-C stops an answer; a second one leaves."""
RETRY_TEMPERATURE = 0.7  # a greedy answer would come out the same again


class Talk:
    """One conversation about at most one picture, which goes with the first question.

    One picture, because that is what LLaVA-1.5 was trained on: another picture begins another conversation.
    Answers go to standard output, notes to standard error. `num_mistakes` counts the lines that could not be followed.
    """

    def __init__(
        self, engine: Engine, params: SamplingParams, *, template: str | JinjaTemplate | None, model_name: str
    ) -> None:
        self._engine, self._params, self._template, self._model_name = engine, params, template, model_name
        self._picture: Image.Image | None = None
        self._picture_name = ""
        self._said = Conversation()
        self._num_retries = 0
        self.num_mistakes = 0
        self._notes = Console(stderr=True, highlight=False, soft_wrap=True)
        self._commands: dict[str, Callable[[str], bool | None]] = {
            "/image": self._show_typed,
            "/clear": self._clear,
            "/retry": self._retry,
            "/save": self._save,
            "/help": lambda _: self._note(HELP),
        }

    def show(self, path: str | Path) -> None:
        """Look at a picture from now on; raises `ImageError` and changes nothing if it cannot be read."""
        self._picture, self._picture_name = open_image(path), str(path)
        self._said = Conversation()
        self._note(f"{path} ({self._picture.width}x{self._picture.height})")

    def run(self) -> None:
        """Talk until the input ends, /exit, or two Ctrl-C without a line between them (KeyboardInterrupt)."""
        topic = "ask about the picture" if self._picture else "ask, or show a picture with /image PATH"
        self._note(f"{self._model_name}: {topic}; /help shows what else can be typed.")
        is_interrupted = False
        while True:
            try:
                line = read_line(PROMPT).strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                if is_interrupted:
                    raise
                is_interrupted = True
                self._note("\nCtrl-C again leaves.")
                continue
            if line in ("/exit", "/quit"):
                return
            try:
                is_interrupted = self._take(line)
            except (ValueError, OSError) as error:
                is_interrupted = False
                self.num_mistakes += 1
                self._note(str(error), style="red")

    def _take(self, line: str) -> bool:
        """Do what a line says; returns whether Ctrl-C stopped it."""
        if not line:
            return False
        word, _, rest = line.partition(" ")
        if word in self._commands:
            return bool(self._commands[word](rest.strip()))
        path = dropped_path(line)
        if path is not None and path.is_absolute():  # as dropped files are; a plain word is a question
            return bool(self.show(path))
        if word.startswith("/"):
            known = nearest(word, [*self._commands, "/exit"])
            raise ValueError(f"there is no command {word} and no such file; {known}")
        self._num_retries = 0
        parts = [self._picture] if self._picture is not None and not self._said.messages else []
        return self._answer(self._said.ask(*parts, line), self._params)

    def _answer(self, asked: Conversation, params: SamplingParams) -> bool:
        """Print the answer as it comes and remember what was shown of it; returns whether Ctrl-C stopped it."""
        shown = ""
        events = self._engine.stream(asked, params, template=self._template)
        with stop_on_interrupt() as is_stopped, closing(events):
            for event in events:
                if is_stopped():
                    break
                print(event.text, end="", flush=True)
                shown += event.text
            print(flush=True)
            if shown:
                self._said = asked.answer(shown)
            return is_stopped()

    def _show_typed(self, path: str) -> None:
        if not path:
            raise ValueError("/image needs the path of a picture")
        self.show(dropped_path(path) or path)

    def _clear(self, _: str) -> None:
        self._said = Conversation()
        self._note("Forgotten; the picture is still there." if self._picture else "Forgotten.")

    def _retry(self, _: str) -> bool:
        if not self._said.messages:
            raise ValueError("there is no answer yet to try again")
        self._num_retries += 1
        changes: dict[str, object] = {}
        if self._params.temperature == 0:
            changes["temperature"] = RETRY_TEMPERATURE
        if self._params.seed is not None:
            changes["seed"] = self._params.seed + self._num_retries
        asked = Conversation(self._said.messages[:-1], self._said.system)
        return self._answer(asked, self._params.model_copy(update=changes))

    def _save(self, path: str) -> None:
        if not path:
            raise ValueError("/save needs a path")
        if not self._said.messages:
            raise ValueError("nothing has been said yet")
        with open(os.path.expanduser(path), "x", encoding="utf-8") as file:  # never over a file that is there
            file.write(self._transcript())
        self._note(f"Saved as {path}.")

    def _transcript(self) -> str:
        picture = f"![the picture](<{Path(self._picture_name).resolve()}>)\n\n" if self._picture_name else ""
        speakers = {"user": "You", "assistant": self._model_name}
        turns = [
            f"**{speakers[message.role]}:** " + "".join(part.text for part in message.parts if isinstance(part, Text))
            for message in self._said.messages
        ]
        return f"# A conversation with {self._model_name}\n\n{picture}" + "\n\n".join(turns) + "\n"

    def _note(self, text: str, style: str = "dim") -> None:
        self._notes.print(text, style=style, markup=False)
