"""`llava quantize`: a model in fewer bits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llavakit.cli.options import BaseOption, ModelArgument, ThreadsOption, VisionTowerOption

if TYPE_CHECKING:
    from rich.console import Console

    from llavakit.checkpoint.contents import Parts
    from llavakit.quantize.calibrate import Inputs
    from llavakit.quantize.schemes import Scheme

SchemeName = Literal["int8", "int4-g32", "int4-g128", "nf4"]  # of `quantize.schemes`, which imports too much for --help

_SCHEME_HELP = (
    "int8 loses nothing that shows; int4-g32 and nf4 halve it again, int4-g128 takes a little less than these."
)
_CALIBRATE_HELP = "Tokens of conversations to read first, to see what the matrices are multiplied with; 0 is none."
_DATA_HELP = "Conversations with pictures, in LLaVA's JSON, for that and for the report.  [default: drawn ones]"
_REPORT_TOKENS = 16384


def quantize(
    model: ModelArgument,
    scheme: Annotated[SchemeName, typer.Option(help=_SCHEME_HELP)],
    out: Annotated[Path, typer.Option(help="The folder to write.", file_okay=False)],
    data: Annotated[Path | None, typer.Option(help=_DATA_HELP, exists=True, dir_okay=False)] = None,
    calibrate: Annotated[int, typer.Option(min=0, metavar="TOKENS", help=_CALIBRATE_HELP)] = 16384,
    report: Annotated[bool, typer.Option("--report", help="Compare its answers with those of the model.")] = False,
    vision_tower: VisionTowerOption = None,
    base: BaseOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Write a model in fewer bits, as a native folder. Prints where it is, its size and by how much it is off."""
    from rich.console import Console
    from rich.progress import Progress

    from llavakit.checkpoint.contents import Parts, read_contents
    from llavakit.checkpoint.load import companions, locate
    from llavakit.checkpoint.quantizing import check_quantizable, check_target, quantize_checkpoint
    from llavakit.cli.opening import set_threads
    from llavakit.quantize.schemes import find_scheme

    set_threads(threads)
    parts = Parts(vision_tower, base)
    check_target(out, locate(model))
    check_quantizable(read_contents(locate(model), companions(model, parts)), locate(model))
    console = Console(stderr=True)
    inputs = _inputs(model, parts, find_scheme(scheme), data, calibrate, console)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("quantising", total=1.0)

        def watch(share: float) -> None:
            progress.update(task, completed=share)

        done = quantize_checkpoint(model, out, scheme=scheme, inputs=inputs, parts=parts, watch=watch)
    print(f"{done.before / 1e6:,.1f} MB became {done.after / 1e6:,.1f} MB", file=sys.stderr)
    print(f"products of the language model's matrices are off by {100 * done.language_error:.2f}%", file=sys.stderr)
    if report:
        _report(model, parts, out, data)
    print(out)


def _inputs(
    model: str, parts: Parts, scheme: Scheme, data: Path | None, num_tokens: int, console: Console
) -> Inputs | None:
    """What the matrices are multiplied with; None where that is not wanted, or where the model is too large to run."""
    from rich.progress import Progress

    from llavakit.checkpoint.load import load
    from llavakit.checkpoint.memory import TooLittleMemory
    from llavakit.evaluate.prompts import observe, prompts

    if not num_tokens or scheme.is_exact:
        return None
    try:
        loaded = load(model, parts=parts)
    except TooLittleMemory as error:
        print(f"not calibrated, for the model cannot be run here: {error}", file=sys.stderr)
        return None
    samples = prompts(loaded, data, num_tokens=num_tokens, split="train")
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading conversations", total=num_tokens)
        try:
            return observe(loaded.model, scheme, samples, lambda tokens: progress.advance(task, tokens))
        except FileNotFoundError as error:
            raise ValueError(f"{error}; or give --data, or --calibrate 0") from None


def _report(model: str, parts: Parts, out: Path, data: Path | None) -> None:
    """Print how much like the model its quantised form is, and keep it in the card."""
    from llavakit.checkpoint.atomic import atomic_file
    from llavakit.checkpoint.load import load
    from llavakit.checkpoint.save import CARD_FILE
    from llavakit.evaluate.likeness import likeness
    from llavakit.evaluate.prompts import prompts

    loaded, quantized = load(model, parts=parts), load(out)
    found = likeness(loaded.model, quantized.model, prompts(loaded, data, num_tokens=_REPORT_TOKENS, split="heldout"))
    low, high = found.agreement.interval
    told = (
        f"KL divergence from the model it was made from: {found.kl:.5f} +- {found.kl_spread:.5f} nats a word",
        f"the same likeliest word: {found.agreement.percent}% of {found.agreement.n:,} ({low} to {high})",
    )
    print("\n".join(told), file=sys.stderr)
    with atomic_file(out / CARD_FILE) as card:
        lines = "".join(f"- {line}\n" for line in told)
        card.write_text((out / CARD_FILE).read_text(encoding="utf-8") + lines, encoding="utf-8")
