"""`llava evaluate`: how often a model is right, by kind of question."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llavakit.cli.options import (
    AfterLayerOption,
    BaseOption,
    DeviceOption,
    DTypeOption,
    KeysValuesOption,
    ModelArgument,
    ThreadsOption,
    VisionTowerOption,
    VisualMethodOption,
    VisualTokensOption,
)

_DATA_HELP = "A folder or JSON file that `llava scenes --kind instruct --split heldout` wrote."
_LIMIT_HELP = "Ask at most this many questions.  [default: all]"


def evaluate(
    model: ModelArgument,
    data: Annotated[Path, typer.Option(metavar="FOLDER_OR_JSON", help=_DATA_HELP)],
    limit: Annotated[int | None, typer.Option(min=1, help=_LIMIT_HELP)] = None,
    seed: Annotated[int, typer.Option(help="Chooses the pictures, where there is a limit.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the whole report here, as JSON.", dir_okay=False)] = None,
    kv_cache: KeysValuesOption = None,
    visual_tokens: VisualTokensOption = None,
    visual_method: VisualMethodOption = None,
    after_layer: AfterLayerOption = None,
    vision_tower: VisionTowerOption = None,
    base: BaseOption = None,
    device: DeviceOption = "auto",
    dtype: DTypeOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Score a model on a data set. Every question is asked, and the answers are scored by kind of question."""
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import track

    from llavakit.checkpoint.load import locate
    from llavakit.cli.opening import open_model, visual_tokens_of
    from llavakit.evaluate.report import write_report
    from llavakit.evaluate.run import run
    from llavakit.evaluate.table import render
    from llavakit.evaluate.task import Answer
    from llavakit.evaluate.tasks import TASKS

    console = Console(stderr=True)

    def watch(answers: Iterator[Answer], total: int) -> Iterator[Answer]:
        yield from track(answers, "asking", total=total, console=console, disable=not console.is_terminal)

    fewer = visual_tokens_of(visual_tokens, visual_method, after_layer)
    task = TASKS["scenes"]
    test = task.read(data)
    loaded = open_model(
        model,
        vision_tower=vision_tower,
        base=base,
        device=device,
        dtype=dtype,
        threads=threads,
        visual_tokens=fewer,
    )
    report = run(task, test, loaded, folder=locate(model), limit=limit, seed=seed, kv_cache=kv_cache, watch=watch)
    Console().print(render(report["results"]))
    asked = f"{report['asked']['questions']} questions in {report['seconds']:.0f} s"
    if out is not None:
        write_report(out, report)
    print(asked if out is None else f"{asked}, report in {out}")
