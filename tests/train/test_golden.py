"""Loss and gradients of the original, on its own collated batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from llavakit.checkpoint.weights import load_model
from llavakit.data.collate import IGNORE
from llavakit.model import Images, Llava
from llavakit.train.loss import cross_entropy
from llavakit.train.optimizer import freeze_rest

ORIGINAL_IMAGE_TOKEN = -200
WORDS = 544  # rows of the vocabulary; the converted checkpoint has some more, which the original does not
OURS = {"model.mm_projector.0": "projector.fc1", "model.mm_projector.2": "projector.fc2", "lm_head": "language.lm_head"}


@pytest.mark.parametrize("name", ["v15-mlp-sft", "v15-mlp-sft-maxlen120"])
def test_stage_2_equals_the_original(name: str, fixtures: Path, compared: Any) -> None:
    about = {"subject": f"training, {name}", "oracle": "haotian-liu/LLaVA c121f04"}
    gradients = about | {"stage": "gradients of the projector, the largest being 1"}
    facts = json.loads((fixtures / "train" / f"{name}.json").read_text())
    golden = load_file(fixtures / "train" / f"{name}.safetensors")
    model = load_model(fixtures / "hf" / "converted" / "v15-mlp", dtype=torch.float32)
    freeze_rest(model, {"projector": 1.0, "language": 1.0})
    tokens, labels, pixels = expanded(golden, model, longest=facts["model_max_length"])
    compared.equal(labels.tolist(), golden["expanded_labels"].tolist(), stage="labels of the batch", **about)

    following = torch.cat((labels[:, 1:], torch.full((len(labels), 1), IGNORE)), dim=1)
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    hidden = model(tokens, Images(pixels), positions)
    loss = cross_entropy(hidden, following, model.language.output_weight[:WORDS]) / (following != IGNORE).sum()
    loss.backward()

    compared.close(loss.detach(), torch.tensor(facts["loss"]), stage="loss", atol=1e-5, **about)
    assert (following != IGNORE).sum() == facts["learned_tokens"]
    check_gradients(model, facts, golden, lambda *pair: compared.close(*pair, atol=1e-4, rtol=1e-4, **gradients))


def expanded(golden: dict[str, Tensor], model: Llava, *, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The original writes one id for a picture, ours are as many as its features; both cut the rows afterwards."""
    placeholders = model.config.vision.num_features
    rows, labels, pictures = [], [], []
    ids = zip(golden["input_ids"], golden["labels"], golden["attention_mask"], golden["images"], strict=True)
    for row, wanted, kept, picture in ids:
        tokens: list[int] = []
        learned: list[int] = []
        for token, label in zip(row[kept].tolist(), wanted[kept].tolist(), strict=True):
            is_picture = token == ORIGINAL_IMAGE_TOKEN
            tokens += [model.config.tokens.image] * placeholders if is_picture else [token]
            learned += [IGNORE] * placeholders if is_picture else [label]
            if is_picture:
                pictures.append(picture)
        rows.append(torch.tensor(tokens[:longest]))
        labels.append(torch.tensor(learned[:longest]))
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(rows, batch_first=True), pad(labels, batch_first=True, padding_value=IGNORE), torch.stack(pictures)


def check_gradients(
    model: Llava, facts: dict[str, Any], golden: dict[str, Tensor], close: Callable[[Tensor, Tensor], None]
) -> None:
    """Every trained tensor by its norm, the projector's in full."""
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    theirs = {our_name(name): norm for name, norm in facts["grad_norms"].items()}
    assert gradients.keys() == theirs.keys()
    norms = {name: gradient[:WORDS].norm().item() for name, gradient in gradients.items()}
    assert norms == pytest.approx(theirs, rel=1e-4)
    full = {our_name(name.removeprefix("grad.")): g for name, g in golden.items() if name.startswith("grad.")}
    assert len(full) == 4
    for name, gradient in full.items():
        largest = gradient.abs().max().clamp(min=torch.finfo(gradient.dtype).tiny)
        close(gradients[name] / largest, gradient / largest)


def our_name(name: str) -> str:
    parts = next((theirs for theirs in OURS if name.startswith(theirs)), None)
    return OURS[parts] + name.removeprefix(parts) if parts else name.replace("model.", "language.", 1)
