"""`llava chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from llavakit.cli.options import (
    AfterLayerOption,
    BaseOption,
    DeviceOption,
    DraftOption,
    DTypeOption,
    KeysValuesOption,
    MaxTokensOption,
    ModelOption,
    SeedOption,
    TemperatureOption,
    TemplateOption,
    ThreadsOption,
    TopKOption,
    TopPOption,
    VisionTowerOption,
    VisualMethodOption,
    VisualTokensOption,
)


def chat(
    picture: Annotated[str | None, typer.Argument(metavar="PICTURE", help="An image file to talk about.")] = None,
    model: ModelOption = "pocket",
    max_tokens: MaxTokensOption = 512,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    top_k: TopKOption = 0,
    seed: SeedOption = None,
    draft: DraftOption = 0,
    template: TemplateOption = None,
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
    """Talk about a picture. /help says what can be typed; Ctrl-C stops an answer, and a second one leaves."""
    from llavakit.cli.opening import open_model, open_template, visual_tokens_of
    from llavakit.cli.talk import Talk
    from llavakit.engine.engine import Engine
    from llavakit.engine.sampling import SamplingParams

    chosen = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    params = SamplingParams.parse(chosen | {"draft_tokens": draft})
    fewer = visual_tokens_of(visual_tokens, visual_method, after_layer)
    style = open_template(template, model=model)
    loaded = open_model(
        model,
        vision_tower=vision_tower,
        base=base,
        device=device,
        dtype=dtype,
        threads=threads,
        visual_tokens=fewer,
    )
    talk = Talk(Engine(loaded, is_compiled=True, kv_cache=kv_cache), params, template=style, model_name=loaded.name)
    if picture is not None:
        talk.show(picture)
    talk.run()
    if talk.num_mistakes and not sys.stdin.isatty():
        raise typer.Exit(1)  # a script cannot read the notes
