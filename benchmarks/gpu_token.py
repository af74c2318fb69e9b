"""A word by itself on a GPU, either way of computing it: `python benchmarks/gpu_token.py [SCHEME ...]` prints one JSON.

At the shapes of LLaVA 1.5 7B with random weights, 700 tokens in, replayed as a graph and measured by the card's clock.
One kernel for all layers and five for each have to come to the same scores; `apart` is how far they are from that.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from llavakit.bench.probe import probe
from llavakit.bench.runner_subject import random_quantised
from llavakit.bench.shapes import find_shapes
from llavakit.circumstances import circumstances
from llavakit.engine.blocks import BLOCK, num_blocks_for
from llavakit.engine.fixed_storage import FixedStorage
from llavakit.engine.gpu_language import GpuLanguage
from llavakit.engine.recorded import CudaGraphs

DEVICE, PLACE, TIMES = torch.device("cuda"), 699, 20


def measure(scheme: str) -> dict[str, Any]:
    config = find_shapes("llava-1.5-7b")
    model, blocks = random_quantised(config, scheme, "cuda"), num_blocks_for(PLACE + 1)
    storage = FixedStorage(config.language, blocks, dtype=torch.bfloat16, device=DEVICE)
    for kept in storage.keys + storage.values:
        kept.normal_()
    language = GpuLanguage(model.language, storage, dtype=torch.bfloat16, most_rows=1)
    order = torch.randperm(blocks, generator=torch.Generator().manual_seed(0)).tolist()
    plan = torch.tensor([[17, PLACE, PLACE, PLACE, *order]]).pin_memory()
    ways: dict[str, Callable[[Tensor], Tensor] | None] = {"one": language._one, "five a layer": language._many}
    seconds, scores = {}, {}
    for name, way in ways.items():
        if way is None:
            continue
        step = CudaGraphs(DEVICE)(way, plan)
        seconds[name], scores[name] = timed(step, plan), step(plan).float()
    language_bytes = language.decode_bytes + 2 * sum(kept[:, : blocks * BLOCK].nbytes for kept in storage.keys)
    result = {"ms": seconds, "gigabytes": round(language_bytes / 1e9, 3)}
    if len(scores) == 2:
        one, five = scores.values()
        result["apart"] = round(((one - five).norm() / five.norm()).item(), 4)
    return result


def timed(step: Callable[[Tensor], Tensor], plan: Tensor) -> float:
    found = []
    for _ in range(TIMES):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step(plan)
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end))
    return round(median(found), 3)


@torch.inference_mode()
def main(*schemes: str) -> None:
    result: dict[str, Any] = {"what": "a word by itself, 700 tokens in", "read_gbps": probe(1, "cuda").read_gbps}
    for scheme in schemes or ("bfloat16", "int8", "int4-g128"):
        result[scheme] = measure(scheme)
        gc.collect()
        torch.cuda.empty_cache()
    print(json.dumps(result | circumstances(DEVICE)))


if __name__ == "__main__":
    main(*sys.argv[1:])
