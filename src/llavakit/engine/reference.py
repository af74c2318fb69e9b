"""Generation in its plainest form, and the oracle for the engine: no cache, everything computed anew for each token."""

from __future__ import annotations

import torch

from llavakit.anyres import partly_kept, token_positions
from llavakit.engine.sampling import SamplingParams, forbidden_tokens, sample
from llavakit.model import Images, Llava
from llavakit.model.drop import Drop
from llavakit.processing.processor import Inputs


@torch.inference_mode()
def generate(model: Llava, inputs: Inputs, params: SamplingParams, *, tokenizer_size: int) -> list[int]:
    """The tokens of the answer, without an end token: until that, `max_tokens`, or the end of the context.

    Stop strings concern text and are not looked at.
    """
    device = model.language.norm.weight.device
    weight = model.vision.embeddings.patch_embedding.weight  # pixels come as float32 on the CPU
    images = None if inputs.pixels is None else Images(pixels=inputs.pixels.to(weight), sizes=inputs.sizes)
    forbidden = forbidden_tokens(model.config, tokenizer_size)
    generator = params.generator()
    fewer, drop = model.config.dropping, None
    if fewer and inputs.spans:
        pictures = partly_kept(inputs.spans, inputs.sizes, model.config)
        drop = Drop(fewer.after_layer, pictures, asker=len(inputs.tokens) - 1)

    tokens = list(inputs.tokens)
    for _ in range(params.max_tokens):
        positions = token_positions(len(tokens), inputs.spans, model.config)
        if positions[-1] + 1 >= model.config.language.max_positions:
            break
        row = torch.tensor([tokens], device=device)
        hidden = model(row, images, torch.tensor([positions], device=device), drop=drop)
        logits = model.language.logits(hidden[0, -1]).float().cpu()
        token = sample(logits.masked_fill(forbidden, -torch.inf), params, generator, history=tokens)
        if token in (*model.config.tokens.ends, *inputs.answer.ends):
            break
        tokens.append(token)
    return tokens[len(inputs.tokens) :]
