"""A checkpoint's own Jinja template, run in a process that nothing depends on: run as a script, never imported.

Standard input has the template's source, the values for each rendering and the limits, standard output a text or an
error for each. Jinja's immutable sandbox keeps a template away from Python's insides; the limits of the operating
system keep it from taking all memory or time, whatever it multiplies or repeats.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

try:
    import resource
except ImportError:  # not on Windows, where the parent's patience is the only limit
    resource = None


class Parts(list):
    """The parts of a message, which are no text: a template that takes them for one has to be given text."""

    def __str__(self) -> NoReturn:
        raise TypeError("a message of several parts is written as text")

    __repr__ = __format__ = __str__


class Generation(Extension):
    """`{% generation %}`, with which transformers marks what the assistant says; here its content alone."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def main() -> None:
    task = json.load(sys.stdin)
    # As transformers sets it up.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, LoopControlExtension]
    )
    environment.globals["raise_exception"] = _raise
    _limit(task["seconds"], task["bytes"])
    json.dump([_attempt(environment, task, values) for values in task["renderings"]], sys.stdout)


def _attempt(
    environment: ImmutableSandboxedEnvironment, task: dict[str, Any], values: dict[str, Any]
) -> dict[str, str]:
    try:
        return {"text": _render(environment.from_string(task["source"]), values, task["characters"])}
    except MemoryError:
        return {"error": f"it takes more than {task['bytes'] // 2**20} MB of memory"}
    except Exception as error:  # a template may fail in any way that Python knows
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}


def _render(template: jinja2.Template, values: dict[str, Any], most: int) -> str:
    messages = [
        {**message, "content": Parts(message["content"])} if isinstance(message["content"], list) else message
        for message in values["messages"]
    ]
    pieces, length = [], 0
    for piece in template.generate({**values, "messages": messages}):
        length += len(piece)
        if length > most:
            raise ValueError(f"it writes more than {most:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _limit(seconds: int, memory: int) -> None:
    if resource is None:
        return
    # Of two limits of time the first ends the process by a signal of its own, which says that it was the time.
    for kind, limits in ((resource.RLIMIT_CPU, (seconds, seconds + 1)), (resource.RLIMIT_AS, (memory, memory))):
        with contextlib.suppress(ValueError, OSError):  # some systems know a limit by name only
            resource.setrlimit(kind, limits)


if __name__ == "__main__":
    main()
