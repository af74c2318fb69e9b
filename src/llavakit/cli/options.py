"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Device = Literal["auto", "cpu", "cuda", "mps"]
DType = Literal["auto", "float32", "bfloat16", "float16"]

_MODEL_HELP = "A checkpoint folder, a name that llava list shows, or the hub id of a pulled model."


def not_empty(value: str) -> str:
    """An empty word is a mistake of a script, and no name of the current folder."""
    if not value.strip():
        raise typer.BadParameter("it is empty")
    return value


ModelOption = Annotated[str, typer.Option("--model", "-m", help=_MODEL_HELP, callback=not_empty)]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL_HELP, callback=not_empty)]


def _folder_of(name: str) -> Path:
    """A folder, or that of a pulled model."""
    from llavakit.checkpoint.load import locate

    not_empty(name)
    try:
        return locate(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


VisionTowerOption = Annotated[
    Path | None,
    typer.Option(
        parser=_folder_of, metavar="MODEL", help="Folder or hub id of the vision tower, for a checkpoint without one."
    ),
]
BaseOption = Annotated[
    Path | None,
    typer.Option(
        parser=_folder_of,
        metavar="MODEL",
        help="Folder or hub id of the model it was made from: for projectors, adapters, deltas.",
    ),
]
PickleOption = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Read .bin files too: pickles, which can be made to run code. They are opened with weights only, in "
        "a process of their own. Allow it for files whose maker you trust.",
    ),
]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute; auto takes a GPU where there is one.")]
DTypeOption = Annotated[DType, typer.Option(help="Number format of the weights; auto suits the device.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads.  [default: all cores]")]

# Spelt out, because `llavakit.config` takes long to import; a test holds the two together.
VisualMethod = Literal["attention", "pool"]
VisualTokensOption = Annotated[
    int | None,
    typer.Option(
        "--visual-tokens",
        min=1,
        help="Bring each view of a picture down to so many tokens: faster, and less exact.  [default: all]",
    ),
]
VisualMethodOption = Annotated[
    VisualMethod | None,
    typer.Option(
        "--visual-method",
        help="How: keep the patches the tower looks at, to count for the others too, or the mean of squares.  "
        "[default: attention]",
    ),
]
AfterLayerOption = Annotated[
    int | None,
    typer.Option(
        "--after-layer",
        min=1,
        help="Where: after so many layers of the language model, by what the question attends to.  "
        "[default: before the first]",
    ),
]

KeysValues = Literal["float16", "int8"]
KeysValuesOption = Annotated[
    KeysValues | None,
    typer.Option(
        "--kv-cache",
        help="What the native kernels keep keys and values as; int8 takes half the memory.  [default: float16]",
    ),
]

OWN_TEMPLATE = "jinja"
_TEMPLATE_HELP = (
    f"Prompt template, of those that llava list --templates shows; {OWN_TEMPLATE} is the Jinja program that came with "
    "the model, run apart with little time and memory.  [default: the one it was trained with]"
)
TemplateOption = Annotated[str | None, typer.Option(help=_TEMPLATE_HELP)]
MaxTokensOption = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
TemperatureOption = Annotated[float, typer.Option(min=0, help="0 takes the likeliest token; higher is freer.")]
TopPOption = Annotated[float, typer.Option(max=1, help="Draw from the likeliest tokens that hold this probability.")]
TopKOption = Annotated[int, typer.Option(min=0, help="Draw from this many of the likeliest tokens; 0 is all.")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Make what is drawn repeatable.")]
DraftOption = Annotated[
    int,
    typer.Option(
        "--draft",
        min=0,
        max=64,
        help="Guess so many tokens from what was said before and verify them in one step; the answer stays the same.",
    ),
]
