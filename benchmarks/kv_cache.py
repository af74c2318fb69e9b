"""What keys and values of 8 bits cost the pocket model: `python benchmarks/kv_cache.py HELDOUT` prints one JSON.

HELDOUT is a folder of `llava scenes --kind instruct --split heldout --count 800 --seed 100`. Both sides are
computed by the native kernels and differ in nothing else; `likeness` and `scores` are what they are in quantization.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from quantization import COMPARED, mean_of, scores
from torch import Tensor

from llavakit.checkpoint.load import Loaded, load
from llavakit.circumstances import circumstances, digest
from llavakit.data.collate import Sample
from llavakit.engine.blocks import num_blocks_for
from llavakit.engine.engine import Engine, runner_for
from llavakit.engine.runner import Runner, Span
from llavakit.evaluate.prompts import prompts
from llavakit.evaluate.run import ask, choose
from llavakit.evaluate.score import Score
from llavakit.evaluate.task import Answer
from llavakit.evaluate.tasks import TASKS
from llavakit.kernels import set_num_threads
from llavakit.kernels.graph import KeysValues


def answer_logits(runner: Runner, sample: Sample) -> Tensor:
    """Scores in front of each word of the answers."""
    embeds = None if sample.pixels is None else runner.encode(sample.pixels, sample.sizes[0]).embeds
    number = len(sample.tokens)
    span = Span(sample.tokens, 0, range(num_blocks_for(number)), embeds, num_logits=number)
    places = torch.tensor(sample.targets[1:]).nonzero().flatten()
    return runner.step([span])[0][places]


def likeness(loaded: Loaded, file: Path) -> dict[str, Any]:
    runners = [runner_for(loaded.model, 0, kv_cache=kept) for kept in ("float16", "int8")]
    divergences: list[Tensor] = []
    same: list[bool] = []
    for sample in islice(prompts(loaded, file, num_tokens=1 << 40, split="heldout"), COMPARED):
        expected, given = (answer_logits(runner, sample).log_softmax(-1) for runner in runners)
        divergences.append((expected.exp() * (expected - given)).sum(-1).double())
        same += (expected.argmax(-1) == given.argmax(-1)).tolist()
    score = Score.of(same)
    return {"words": score.n, "kl": mean_of(torch.cat(divergences)), "agreement": [score.percent, *score.interval]}


def answers(loaded: Loaded, folder: Path, limit: int | None, kept: KeysValues) -> list[Answer]:
    task = TASKS["scenes"]
    chosen = choose(task.read(folder).questions, limit=limit, seed=0)
    return list(ask(Engine(loaded, kv_cache=kept), task, chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("heldout", type=Path, help="folder of held-out questions")
    parser.add_argument("--model", default="pocket", help="one that runs natively")
    parser.add_argument("--limit", type=int, help="ask only the first so many questions")
    given = parser.parse_args()
    torch.set_num_threads(1)
    set_num_threads(1)
    loaded, file = load(given.model), TASKS["scenes"].read(given.heldout).file
    found = {"likeness": likeness(loaded, file)}
    print(json.dumps(found), file=sys.stderr)
    found["scores"] = scores(*(answers(loaded, given.heldout, given.limit, kept) for kept in ("float16", "int8")))
    print(json.dumps({"model": loaded.name, "data": digest(file), **found, **circumstances(torch.device("cpu"))}))


if __name__ == "__main__":
    main()
