"""How fast the pocket model answers on this machine: `python benchmarks/pocket_speed.py`, the last line is one JSON.

Each round asks two questions about one picture with an engine that has seen nothing, so that the first answer pays for
the picture and the second only for its own tokens. Medians over the rounds.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from llavakit import kernels
from llavakit.checkpoint.load import load
from llavakit.engine.engine import Engine
from llavakit.processing import Conversation, open_image

ROUNDS = 15
PICTURE = Path(__file__).parent.parent / "examples" / "drawing.png"
FIRST, SECOND = "Describe the picture in detail.", "How many things are in the picture?"


def measure() -> dict[str, float]:
    """One round, in milliseconds and tokens per second."""
    engine, picture = Engine(LOADED), open_image(PICTURE)
    asked = Conversation().ask(picture, FIRST)
    first = engine.generate(asked)
    second = engine.generate(asked.answer(first.text).ask(SECOND))
    return {
        "first_token_ms": first.timings.first_token_ms,
        "encode_ms": first.timings.encode_ms,
        "prefill_ms": first.timings.prefill_ms,
        "tokens_per_s": 1000 * (len(first.tokens)) / first.timings.decode_ms,
        "second_first_token_ms": second.timings.first_token_ms,
        "second_cached_tokens": second.timings.cached_tokens,
    }


LOADED = load("pocket")
if __name__ == "__main__":
    measure()  # warm
    rounds = [measure() for _ in range(ROUNDS)]
    figures = {key: [one[key] for one in rounds] for key in rounds[0]}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    result = {
        "what": "pocket model, batch 1",
        "medians": {key: round(statistics.median(values), 2) for key, values in figures.items()},
        "ranges": {key: [round(min(values), 2), round(max(values), 2)] for key, values in figures.items()},
        "rounds": ROUNDS,
        "threads": kernels.num_threads(),
        "kernels": kernels.instruction_set(),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "commit": commit,
        "command": "python " + " ".join(sys.argv),
    }
    print(json.dumps(result))
