"""What each scheme costs the pocket model: `python benchmarks/quantization.py HELDOUT` prints one JSON.

HELDOUT is a folder of `llava scenes --kind instruct --split heldout --count 800 --seed 100`. The model is
quantised by every scheme, calibrated on drawn pictures of the training split; then, on held-out ones,

    sizes       of the weight files, in bytes
    products    mean over the language model's matrices of |XW' - kernel(X)| / |XW'|, X what really goes into them
    likeness    KL divergence from the model's probabilities of the next word, and how often the likeliest is the same
    scores      every score of the benchmark, with the difference to the model's own answers to the same questions

Beside int4-g32 stands llama.cpp's Q4_0, which has as many bits: its rule for codes and scales, over the same kernels
and with all else the same, so that only the rule differs. An interval of a difference is that of paired answers: with b
questions that only the model answers rightly, and c that only the quantised one does, (c - b) / n is known to within
1.96 sqrt(b + c - (b - c)^2 / n) / n.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llavakit.checkpoint.load import Loaded, load
from llavakit.checkpoint.quantizing import quantize_checkpoint
from llavakit.circumstances import circumstances, digest
from llavakit.data.collate import Sample
from llavakit.engine.engine import Engine
from llavakit.evaluate.likeness import answer_logits
from llavakit.evaluate.prompts import hidden_states, observe, prompts
from llavakit.evaluate.run import ask, choose
from llavakit.evaluate.score import NORMAL_95, Score
from llavakit.evaluate.task import Answer
from llavakit.evaluate.tasks import TASKS
from llavakit.kernels.packed import Packed, pack
from llavakit.model import Llava
from llavakit.quantize.apply import matrices
from llavakit.quantize.schemes import SCHEMES, describe, find_scheme

CALIBRATION = 16384  # tokens
COMPARED = 400  # conversations for the likeness, of which the first PRODUCTS for the products
PRODUCTS = 60
Q4_0 = "llama.cpp's Q4_0 in the place of int4-g32"


def q4_0(weight: Tensor) -> Packed:
    """llama.cpp's rule: the largest of 32 weights, sign and all, becomes -8; the rest is rounded, half up."""
    groups = weight.unflatten(1, (-1, 32))
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scale = largest / -8
    codes = (groups * torch.where(scale == 0, 0, 1 / scale) + 8.5).trunc().clamp(0, 15)
    return pack(codes.flatten(1).to(torch.uint8), scale.squeeze(-1).half(), kind="int4", group=32)


def with_q4_0(model: Llava, quantized: Llava) -> Llava:
    """The quantised model with Q4_0's numbers in the matrices of the language model's layers."""
    other = copy.deepcopy(quantized)
    for name, module in matrices(model):
        if name.startswith("language.layers."):
            other.get_submodule(name).packed = q4_0(module.weight.detach()).data
    return other


def products(model: Llava, models: dict[str, Llava], samples: list[Sample]) -> dict[str, float]:
    """By model, the mean relative error of the products of the language model's matrices."""
    errors: dict[str, list[float]] = {name: [] for name in models}
    for name, module in matrices(model):
        if not name.startswith("language.layers."):
            continue
        given: list[Tensor] = []
        hook = module.register_forward_pre_hook(lambda module, inputs, given=given: given.append(inputs[0][0]))
        for sample in samples:
            hidden_states(model, sample)
        hook.remove()
        x = torch.cat(given)
        exact = x @ module.weight.T
        for other, quantized in models.items():
            errors[other].append(((quantized.get_submodule(name)(x) - exact).norm() / exact.norm()).item())
    return {name: sum(found) / len(found) for name, found in errors.items()}


def likenesses(model: Llava, models: dict[str, Llava], samples: list[Sample]) -> dict[str, dict[str, Any]]:
    """By model, as `evaluate.likeness` has it; for Q4_0's rule also the difference to ours, word by word."""
    divergences: dict[str, list[Tensor]] = {name: [] for name in models}
    same: dict[str, list[bool]] = {name: [] for name in models}
    for sample in samples:
        expected = answer_logits(model, sample).log_softmax(-1)
        for name, quantized in models.items():
            given = answer_logits(quantized, sample).log_softmax(-1)
            divergences[name].append((expected.exp() * (expected - given)).sum(-1).double())
            same[name] += (expected.argmax(-1) == given.argmax(-1)).tolist()
    kl = {name: torch.cat(found) for name, found in divergences.items()}
    told: dict[str, dict[str, Any]] = {}
    for name in models:
        score = Score.of(same[name])
        told[name] = {"words": score.n, "kl": mean_of(kl[name]), "agreement": [score.percent, *score.interval]}
    if Q4_0 in models:
        told[Q4_0]["kl_minus_that_of_int4-g32"] = mean_of(kl[Q4_0] - kl["int4-g32"])
    return told


def mean_of(values: Tensor) -> list[float]:
    """The mean, and half of its 95% interval."""
    return [
        float(f"{value:.4g}") for value in (values.mean().item(), NORMAL_95 * values.std().item() / len(values) ** 0.5)
    ]


def scores(before: list[Answer], after: list[Answer]) -> dict[str, dict[str, Any]]:
    """Every score of the benchmark, in percent, before and after."""
    task = TASKS["scenes"]
    places = {"overall": list(range(len(before)))}
    for target in task.targets:
        places[target.name] = [i for i, answer in enumerate(before) if target.counts(answer.question)]
    for kind in sorted({answer.question.kind for answer in before}):
        places[f"kind {kind}"] = [i for i, answer in enumerate(before) if answer.question.kind == kind]
    told = {}
    for name, chosen in places.items():
        pairs = [(before[i].grade.is_right, after[i].grade.is_right) for i in chosen]
        lost, won, n = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs), len(pairs)
        spread = NORMAL_95 * math.sqrt(max(lost + won - (lost - won) ** 2 / n, 0)) / n
        told[name] = {
            "n": n,
            "before": Score.of(a for a, _ in pairs).percent,
            "after": Score.of(b for _, b in pairs).percent,
            "difference": round(100 * (won - lost) / n, 2),
            "within": round(100 * spread, 2),
        }
    return told


def answers(loaded: Loaded, folder: Path, limit: int | None) -> list[Answer]:
    task = TASKS["scenes"]
    return list(ask(Engine(loaded), task, choose(task.read(folder).questions, limit=limit, seed=0)))


def run(heldout: Path, model: str, schemes: list[str], parts: list[str], limit: int | None) -> dict[str, Any]:
    loaded = load(model)
    results: dict[str, dict[str, Any]] = {}
    models: dict[str, Loaded] = {}
    with tempfile.TemporaryDirectory() as place:
        for scheme in schemes:
            samples = prompts(loaded, None, num_tokens=CALIBRATION, split="train")
            inputs = observe(loaded.model, find_scheme(scheme), samples, lambda tokens: None)
            done = quantize_checkpoint(model, Path(place) / scheme, scheme=scheme, inputs=inputs)
            models[scheme] = load(Path(place) / scheme)
            results[scheme] = {"is": describe(find_scheme(scheme)), "bytes": done.after, "bytes_before": done.before}
            print(f"{scheme}: {results[scheme]}", file=sys.stderr)
        file = TASKS["scenes"].read(heldout).file
        if "likeness" in parts:
            compare(loaded, models, file, results)
        if "scores" in parts:
            before = answers(loaded, heldout, limit)
            for scheme, quantized in models.items():
                results[scheme]["scores"] = scores(before, answers(quantized, heldout, limit))
                print(f"{scheme}: {results[scheme]['scores']['overall']}", file=sys.stderr)
    return {"model": loaded.name, "data": digest(file), "results": results, **circumstances(torch.device("cpu"))}


def compare(loaded: Loaded, models: dict[str, Loaded], file: Path, results: dict[str, dict[str, Any]]) -> None:
    """Add products and likeness to the results, and Q4_0's beside them."""
    others = {name: quantized.model for name, quantized in models.items()}
    if "int4-g32" in others:
        others[Q4_0], results[Q4_0] = with_q4_0(loaded.model, others["int4-g32"]), {}
    compared = list(islice(prompts(loaded, file, num_tokens=1 << 40, split="heldout"), COMPARED))
    for name, error in products(loaded.model, others, compared[:PRODUCTS]).items():
        results[name]["products"] = float(f"{error:.4g}")
    for name, found in likenesses(loaded.model, others, compared).items():
        results[name]["likeness"] = found
    print(json.dumps(results), file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("heldout", type=Path, help="folder of held-out questions")
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--limit", type=int, help="ask only the first so many questions")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=[*SCHEMES])
    parser.add_argument("--parts", nargs="+", choices=("likeness", "scores"), default=["likeness", "scores"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        results = run(given.heldout, given.model, given.schemes, given.parts, given.limit)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
