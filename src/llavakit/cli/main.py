"""The `llava` command as a whole: its subcommands, and how an error reaches the user."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from llavakit import __version__
from llavakit.cli.ask import ask
from llavakit.cli.bench import bench
from llavakit.cli.chat import chat
from llavakit.cli.doctor import doctor
from llavakit.cli.evaluate import evaluate
from llavakit.cli.export import export
from llavakit.cli.import_model import import_model
from llavakit.cli.list import list_models
from llavakit.cli.merge import merge
from llavakit.cli.parity import parity
from llavakit.cli.pull import pull
from llavakit.cli.quantize import quantize
from llavakit.cli.rm import rm
from llavakit.cli.scenes import scenes
from llavakit.cli.show import show
from llavakit.cli.train import train

# Plain help and errors: rich would cost half of the time that --help may take.
app = typer.Typer(
    name="llava",
    help="LLaVA: show it a picture, and talk about it.",
    epilog="A mistake is told in one sentence; LLAVAKIT_TRACEBACK=1 shows where it was found.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (ask, chat, show, doctor, parity, train, evaluate, scenes, pull, rm, export, merge, quantize):
    app.command()(command)
app.command("import")(import_model)
app.command("list")(list_models)
app.add_typer(bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"llavakit {__version__}")
        raise typer.Exit


@app.callback()
def llava(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options of `llava` itself, before a command."""


def main() -> None:
    """Run the command line and exit: 0 done, 1 a sentence on standard error, 2 wrong usage, 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode gets "?", not an error
    try:
        app(prog_name="llava")
    except (ValueError, OSError) as error:
        if os.environ.get("LLAVAKIT_TRACEBACK"):
            raise
        print(f"llava: {sentence(error)}", file=sys.stderr)
        sys.exit(1)


def sentence(error: Exception) -> str:
    """What to tell the user about an error."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
