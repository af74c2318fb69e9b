"""`llava bench`: how fast it is on this machine, alone and beside others. The last line printed is one JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llavakit.cli.options import Device, KeysValuesOption, ThreadsOption

if TYPE_CHECKING:
    from llavakit.bench.subject import Subject
    from llavakit.checkpoint.load import Loaded

bench = typer.Typer(
    name="bench",
    help="How fast it is on this machine. The last line is everything as one JSON.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SHAPES_HELP = "Random weights of these shapes in place of a model; speed does not depend on values."
_SCHEME_HELP = "The number format of those weights."
_OUT_HELP = "Write the JSON here too."
DEFAULT_SHAPES = "llava-1.5-7b"
DEFAULT_MODEL = "pocket"
DEFAULT_SCHEME = "bfloat16"

BenchedArgument = Annotated[str, typer.Argument(metavar="[MODEL]", help="A model, as for llava ask.")]
ShapesOption = Annotated[str | None, typer.Option(help=_SHAPES_HELP)]
SchemeOption = Annotated[str, typer.Option(help=_SCHEME_HELP)]
ShapesSchemeOption = Annotated[str | None, typer.Option(help=f"{_SCHEME_HELP}  [default: {DEFAULT_SCHEME}]")]
RoundsOption = Annotated[int, typer.Option(min=1, help="How often everything is measured.")]
BenchedDeviceOption = Annotated[Device, typer.Option(help="Where to compute; on a CUDA device compiled.")]
OutOption = Annotated[Path | None, typer.Option(help=_OUT_HELP, dir_okay=False)]


@bench.command()
def latency(
    model: BenchedArgument = DEFAULT_MODEL,
    shapes: ShapesOption = None,
    scheme: ShapesSchemeOption = None,
    kv_cache: KeysValuesOption = None,
    rounds: RoundsOption = 5,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longest answer of a real model, in tokens.")] = 64,
    device: BenchedDeviceOption = "cpu",
    threads: ThreadsOption = None,
    out: OutOption = None,
) -> None:
    """One conversation: the picture, the prompt, the words, and a second question about the same picture."""
    from llavakit.bench.latency import measure_engine, measure_subject, noisy
    from llavakit.bench.peers.jobs import Prompt
    from llavakit.bench.report import figures_table
    from llavakit.bench.schemes import make_subject
    from llavakit.bench.shapes import find_shapes
    from llavakit.cli.opening import choose_device

    scheme = _scheme(model, scheme, shapes)
    count, place = _threads(threads), choose_device(device)
    if shapes is None:
        opened = _open(model, count, device)
        found = measure_engine(
            opened, noisy(336), threads=count, rounds=rounds, max_tokens=max_tokens, kv_cache=kv_cache
        )
    else:
        config = find_shapes(shapes)
        prompt = Prompt()
        subject = make_subject(config, scheme, threads=count, device=place, length=prompt.length, kv_cache=kv_cache)
        found = measure_subject(
            subject, config, prompt=prompt, threads=count, rounds=rounds, device=place, kv_cache=kv_cache
        )
    named = {"model": model} if shapes is None else {"shapes": shapes, "scheme": scheme}
    named |= {"kv_cache": kv_cache}
    _print("latency", named | found, figures_table(found["figures"]), threads=count, device=place, out=out)


@bench.command()
def throughput(
    model: BenchedArgument = DEFAULT_MODEL,
    shapes: ShapesOption = None,
    scheme: ShapesSchemeOption = None,
    kv_cache: KeysValuesOption = None,
    conversations: Annotated[str, typer.Option(help="How many at once, one number after the other.")] = "1,2,4,8",
    context: Annotated[int, typer.Option(min=1, help="How long each is, in tokens.")] = 640,
    steps: Annotated[int, typer.Option(min=1, help="How many tokens each speaks.")] = 16,
    rounds: RoundsOption = 5,
    device: BenchedDeviceOption = "cpu",
    threads: ThreadsOption = None,
    out: OutOption = None,
) -> None:
    """Many conversations together: how many tokens a second in all."""
    from llavakit.bench.report import throughput_table
    from llavakit.bench.runner_subject import RunnerSubject
    from llavakit.bench.schemes import make_subject
    from llavakit.bench.shapes import find_shapes
    from llavakit.bench.throughput import measure
    from llavakit.cli.opening import choose_device

    counts, length = _numbers(conversations), context + steps
    scheme = _scheme(model, scheme, shapes)
    count, place = _threads(threads), choose_device(device)
    if shapes is None:
        opened = _open(model, count, device).model
        config = opened.config
        subject: Subject = RunnerSubject(opened, conversations=max(counts), length=length, kv_cache=kv_cache)
    else:
        config = find_shapes(shapes)
        subject = make_subject(
            config, scheme, threads=count, device=place, conversations=max(counts), length=length, kv_cache=kv_cache
        )
    found = measure(
        subject,
        config,
        counts=counts,
        context=context,
        steps=steps,
        threads=count,
        rounds=rounds,
        device=place,
        kv_cache=kv_cache,
    )
    named = {"model": model} if shapes is None else {"shapes": shapes, "scheme": scheme}
    named |= {"kv_cache": kv_cache}
    _print("throughput", named | found, throughput_table(found), threads=count, device=place, out=out)


@bench.command()
def kernels(
    shapes: Annotated[str, typer.Option(help="Whose matrices.")] = DEFAULT_SHAPES,
    scheme: SchemeOption = DEFAULT_SCHEME,
    rounds: RoundsOption = 5,
    threads: ThreadsOption = None,
    out: OutOption = None,
) -> None:
    """Every matrix product by itself, with 1, 8, 64 and 640 rows, beside what the machine could do."""
    from llavakit.bench.kernels import measure
    from llavakit.bench.report import products_table
    from llavakit.bench.shapes import find_shapes

    count = _threads(threads)
    found = measure(find_shapes(shapes), scheme, threads=count, rounds=rounds)
    named = {"shapes": shapes, "scheme": scheme}
    _print("kernels", named | found, products_table(found), threads=count, out=out)


@bench.command()
def peers(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[PEER]...", help="Who.  [default: all there are]")
    ] = None,
    shapes: Annotated[str, typer.Option(help="The shapes that all have.")] = DEFAULT_SHAPES,
    scheme: Annotated[str, typer.Option(help="The number format of our own weights.")] = "int4-g32",
    kv_cache: KeysValuesOption = None,
    rounds: RoundsOption = 5,
    device: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="Where all compute; on a GPU 64 conversations are the many.")
    ] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each.")] = 2,
    cache: Annotated[Path, typer.Option(help="Where the peers' models are kept.", file_okay=False)] = Path(
        ".data/bench"
    ),
    out: OutOption = None,
) -> None:
    """Ourselves beside llama.cpp, transformers and OpenVINO: the same jobs by turns, in one run (`make bench`)."""
    from llavakit.bench.cost import works
    from llavakit.bench.peers.jobs import prompt_on
    from llavakit.bench.peers.run import Plan, described, free_memory, run
    from llavakit.bench.peers.table import OURS, SCRIPTS, find_peers
    from llavakit.bench.peers.targets import Facts, reached, targets_on
    from llavakit.bench.report import peers_table
    from llavakit.bench.shapes import find_shapes
    from llavakit.cli.opening import choose_device

    place, asked = choose_device(device), find_peers([OURS, *names] if names else [], device=device)
    if not SCRIPTS.is_dir():
        raise ValueError(
            f"the others' workers are scripts of the repository, and {SCRIPTS} is not there: run it in a clone"
        )
    here = [peer for peer in asked if _is_here(peer.name, peer.missing(), is_asked_for=bool(names))]
    config = find_shapes(shapes)
    room, prompt = free_memory(place), prompt_on(place)
    plan = Plan(config, scheme, _threads(threads), rounds, cache.resolve() / shapes, room, prompt, place, kv_cache)
    found = run(here, plan, say=lambda line: typer.echo(line, err=True))
    first, second = plan.prompt.first, plan.prompt.second
    work = works(config, first=first, second=second, weight_bytes=found.weight_bytes, kv_cache=kv_cache)
    facts = Facts(plan.prompt, found.decode_bytes(plan), 1e9 * work["prefill"]["gigaoperations"])
    result = {
        "shapes": shapes,
        "scheme": scheme,
        "kv_cache": kv_cache,
        "prompt": described(plan.prompt),
        "rounds": rounds,
        "ceilings": [one.ceilings.plain() for one in found.rounds],
        "about": found.about,
        "work": work,
        "figures": found.figures(),
        "targets": reached(targets_on(place, scheme), found.rounds, facts, found.memory),
        "failed": found.failed,
    }
    _print("peers", result, peers_table(result), threads=threads, device=place, out=out)


def _is_here(name: str, missing: list[str], *, is_asked_for: bool) -> bool:
    """Whether a peer can run; ValueError where it was asked for by name and cannot."""
    if not missing:
        return True
    told = f"{name} needs the package {' and '.join(missing)}, which is not installed here: `make bench` installs it"
    if is_asked_for:
        raise ValueError(told)
    typer.echo(f"left out: {told}", err=True)
    return False


def _threads(count: int | None) -> int:
    """All cores, or as many as asked for; ValueError for more than there are."""
    from llavakit.kernels.threads import check_threads, cores

    if count is not None:
        check_threads(count)
    return count or cores()


def _scheme(model: str, asked: str | None, shapes: str | None) -> str:
    """The number format of random weights; ValueError where it was asked for and there are none, or a model beside."""
    if shapes is not None and model != DEFAULT_MODEL:
        raise ValueError(f"{model} and --shapes {shapes}: give a model or shapes with random weights, one of the two")
    if asked is not None and shapes is None:
        raise ValueError(
            f"--scheme {asked} is the number format of random weights, and needs --shapes; a model is measured as it "
            "is stored: `llava quantize` writes it in another scheme"
        )
    return asked or DEFAULT_SCHEME


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ValueError(f"--conversations is {text!r}: numbers of conversations with commas between, such as 1,2,4,8")
    return numbers


def _open(model: str, threads: int, device: Device = "cpu") -> Loaded:
    from llavakit.cli.opening import open_model

    return open_model(model, vision_tower=None, base=None, device=device, dtype="auto", threads=threads)


def _print(
    what: str, found: dict[str, Any], table: str, *, threads: int, out: Path | None, device: str = "cpu"
) -> None:
    """The table, and then everything on one line."""
    from llavakit.bench.report import report
    from llavakit.checkpoint.atomic import atomic_file

    line = json.dumps(report(what, found, threads=threads, device=device))
    typer.echo(f"{table}\n")
    if out is not None:
        with atomic_file(out) as partial:
            partial.write_text(json.dumps(json.loads(line), indent=1) + "\n", encoding="utf-8")
    typer.echo(line)
