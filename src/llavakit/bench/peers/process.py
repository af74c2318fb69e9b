"""A worker's process from outside: started, asked, and ended."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class PeerError(ValueError):
    """A peer that could not be made, or broke off; the message names it and says where it wrote more."""


class Process:
    """A peer at work. Its own words go to `log`."""

    def __init__(self, name: str, command: Sequence[str], asked: dict[str, Any], *, log: Path) -> None:
        self._name, self._log = name, log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [*command, json.dumps(asked)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        try:
            self.made = self._reply()
        except BaseException:
            self.close()
            raise

    def ask(self, *call: str | int) -> dict[str, Any]:
        """Raises `PeerError` where the peer did not do it."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(call) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # why is in its last reply, or in the log
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise PeerError(
                f"{self._name} ended with exit code {code} before it answered; its words are in {self._log}"
            )
        reply = json.loads(line)
        if "error" in reply:
            raise PeerError(f"{self._name} could not do it: {reply['error']} (its words are in {self._log})")
        return reply

    def close(self) -> None:
        """End it, and with it all its memory."""
        assert self._process.stdin and self._process.stdout
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
