"""One picture and one question through a model, with what each stage makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from llavakit.checkpoint.load import Loaded
from llavakit.engine.engine import Engine
from llavakit.engine.sampling import SamplingParams
from llavakit.model import Images
from llavakit.processing.conversation import Conversation

PLACEHOLDER = -1  # stands for whatever id a model has for it


@dataclass(frozen=True)
class Walk:
    """What a model makes of a picture and a question, all on the CPU.

    `prompt` has -1 where a feature goes, for that id is each checkpoint's own. `logits` are those at its words, whose
    places are `words`, over the ids that the tokenizer can spell.
    """

    pixels: Float[Tensor, "views 3 size size"]
    features: Float[Tensor, "views features width"]
    projected: Float[Tensor, "image_tokens dim"]
    prompt: tuple[int, ...]
    words: tuple[int, ...]
    logits: Float[Tensor, "words vocab"]
    text: str


@torch.inference_mode()
def walk(loaded: Loaded, image: Image.Image, question: str, *, max_tokens: int) -> Walk:
    """All stages; raises ValueError where the prompt does not fit into the context."""
    model, config = loaded.model, loaded.config
    conversation = Conversation().ask(image, question)
    text = _answer(Engine(loaded), conversation, max_tokens)
    inputs = loaded.processor(conversation)
    assert inputs.pixels is not None
    features = model.vision(inputs.pixels.to(model.vision.embeddings.patch_embedding.weight))
    images = Images(features=features, sizes=inputs.sizes)
    row = torch.tensor([inputs.tokens], device=features.device)
    hidden = model(row, images, torch.arange(row.shape[1], device=row.device)[None])[0]
    words = [place for place, token in enumerate(inputs.tokens) if token != config.tokens.image]
    logits = model.language.logits(hidden[words])[:, : loaded.tokenizer.size]
    return Walk(
        pixels=inputs.pixels,
        features=features.float().cpu(),
        projected=model.encode_images(images).float().cpu(),
        prompt=tuple(PLACEHOLDER if token == config.tokens.image else token for token in inputs.tokens),
        words=tuple(words),
        logits=logits.float().cpu(),
        text=text,
    )


def _answer(engine: Engine, conversation: Conversation, max_tokens: int) -> str:
    """What is said, or why nothing is: where scores are no numbers, an earlier stage tells more."""
    request = engine.submit(conversation, SamplingParams(max_tokens=max_tokens))
    while not request.is_over:
        engine.step()
    return str(request.error) if request.completion is None else request.completion.text
