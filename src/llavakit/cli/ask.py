"""`llava ask`: one question about one picture."""

from __future__ import annotations

import dataclasses
import json
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
    not_empty,
)


def ask(
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="An image file, or - for standard input.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask about it.", callback=not_empty)],
    model: ModelOption = "pocket",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the text.")] = False,
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
    """Ask one question about a picture. The answer alone goes to standard output."""
    from llavakit.cli.opening import open_model, open_template, visual_tokens_of
    from llavakit.engine.engine import Engine
    from llavakit.engine.request import Completion
    from llavakit.engine.sampling import SamplingParams
    from llavakit.processing.conversation import Conversation
    from llavakit.processing.image import open_image

    chosen = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    params = SamplingParams.parse(chosen | {"draft_tokens": draft})
    fewer = visual_tokens_of(visual_tokens, visual_method, after_layer)
    style = open_template(template, model=model)
    image = open_image(sys.stdin.buffer if picture == "-" else picture)
    loaded = open_model(
        model,
        vision_tower=vision_tower,
        base=base,
        device=device,
        dtype=dtype,
        threads=threads,
        visual_tokens=fewer,
    )
    engine = Engine(loaded, is_compiled=True, kv_cache=kv_cache)
    events = engine.stream(Conversation().ask(image, question), params, template=style)

    def as_object(completion: Completion) -> dict[str, object]:
        return {
            "text": completion.text,
            "prompt_tokens": list(completion.prompt_tokens),
            "tokens": list(completion.tokens),
            "image_tokens": completion.image_tokens,
            "finish_reason": completion.finish_reason,
            "timings": dataclasses.asdict(completion.timings)
            | {"tokens_per_step": round(completion.timings.tokens_per_step, 3)},
        }

    for event in events:
        if not as_json:
            print(event.text, end="", flush=True)
        elif event.completion is not None:
            print(json.dumps(as_object(event.completion), ensure_ascii=False), end="")
    print(flush=True)
