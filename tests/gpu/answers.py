"""Answers of a compiled engine on a CUDA device, held to the naive loop on the same device, in float32."""

from __future__ import annotations

import torch
from PIL import Image

from llavakit.checkpoint.load import load
from llavakit.engine import reference
from llavakit.engine.engine import Engine
from llavakit.engine.graph_runner import GraphRunner
from llavakit.engine.sampling import SamplingParams
from llavakit.processing.conversation import Conversation

QUESTIONS = ("What is in the picture?", "Which colours are there?", "Describe the picture in detail.")


def main() -> None:
    loaded = load("pocket", device="cuda", dtype=torch.float32)
    picture = Image.effect_noise((300, 200), 80).convert("RGB")
    params = SamplingParams(max_tokens=24)
    engine = Engine(loaded, is_compiled=True)
    assert isinstance(engine._runner, GraphRunner)
    requests = [engine.submit(Conversation().ask(picture, question), params) for question in QUESTIONS]
    while not engine.is_idle:
        engine.step()
    for request, question in zip(requests, QUESTIONS, strict=True):
        inputs = loaded.processor(Conversation().ask(picture, question))
        wanted = reference.generate(loaded.model, inputs, params, tokenizer_size=loaded.tokenizer.size)
        assert request.completion is not None and list(request.completion.tokens) == wanted, question


main()
