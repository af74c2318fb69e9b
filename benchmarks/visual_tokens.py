"""What fewer visual tokens cost and save: accuracy on held-out pictures, and milliseconds; kept in visual-tokens.json.

    llava scenes --kind instruct --split heldout --seed 1 --count 800 --out runs/pocket-data/heldout
    python benchmarks/visual_tokens.py score runs/pocket-data/heldout all attention:16 pool:16
    python benchmarks/visual_tokens.py time all attention:16 pool:16

A setting replaces its own row and leaves the others. `time` interleaves the settings in every round, each time with an
engine that has seen nothing, and takes medians.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from llavakit.checkpoint.load import Loaded, load, locate
from llavakit.config import VisualTokens
from llavakit.engine.engine import Engine
from llavakit.engine.sampling import SamplingParams
from llavakit.evaluate.circumstances import circumstances
from llavakit.evaluate.run import run
from llavakit.evaluate.tasks import TASKS
from llavakit.processing import Conversation, open_image

ROUNDS = 21
HERE = Path(__file__).parent
RESULTS = HERE / "visual-tokens.json"
PICTURE = HERE.parent / "examples" / "drawing.png"


def opened(setting: str) -> Loaded:
    """The pocket model with a setting: `all`, or a method and a number of tokens as in `attention:16`."""
    method, _, count = setting.partition(":")
    return load("pocket", visual_tokens=VisualTokens(count=int(count), method=method) if count else None)


def score(setting: str, data: Path) -> dict[str, Any]:
    """Every question of the test, as `llava evaluate` asks them."""
    task = TASKS["scenes"]
    report = run(
        task,
        task.read(data),
        opened(setting),
        folder=locate("pocket"),
        limit=None,
        seed=0,
        watch=lambda answers, _: answers,
    )
    results = report["results"]
    kept = ("model", "data", "machine", "versions", "commit", "command")
    kinds = {kind: row["score"] for kind, row in results["kinds"].items()}
    return {"overall": results["overall"], "kinds": kinds} | {key: report[key] for key in kept}


def times(settings: list[str]) -> dict[str, dict[str, Any]]:
    """Medians and ranges of encoding, prefill and the first token, in milliseconds."""
    models = {setting: opened(setting) for setting in settings}
    rounds: dict[str, list[dict[str, float]]] = {setting: [] for setting in settings}
    asked = Conversation().ask(open_image(PICTURE), "How many things are in the picture?")
    for _ in range(ROUNDS + 1):  # the first is a warm-up
        for setting, loaded in models.items():
            timings = Engine(loaded).generate(asked, SamplingParams(max_tokens=1)).timings
            rounds[setting].append(
                {key: getattr(timings, key) for key in ("encode_ms", "prefill_ms", "first_token_ms")}
            )
    around = {key: circumstances(torch.device("cpu"))[key] for key in ("machine", "versions", "commit", "command")}
    return {
        setting: {
            key: {
                "median": round(statistics.median(row[key] for row in rows[1:]), 2),
                "range": [round(pick(row[key] for row in rows[1:]), 2) for pick in (min, max)],
            }
            for key in rows[0]
        }
        | around
        for setting, rows in rounds.items()
    }


def keep(part: str, setting: str, row: dict[str, Any]) -> None:
    """Put one row into the file of results."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results.setdefault(part, {})[setting] = row
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["score", data, *settings]:
            for setting in settings:
                row = score(setting, Path(data))
                keep("scores", setting, row)
                print(setting, row["overall"], row["kinds"], flush=True)
        case ["time", *settings]:
            for setting, row in times(settings).items():
                keep("times", setting, row)
                print(setting, json.dumps(row))
        case _:
            sys.exit(__doc__)
