"""What fewer visual tokens cost and save: accuracy on held-out pictures, and milliseconds; kept in visual-tokens.json.

    llava scenes --kind instruct --split heldout --count 800 --seed 100 --out runs/pocket-data/heldout
    python benchmarks/visual_tokens.py score runs/pocket-data/heldout all attention:16 pool:16 after-4:16
    python benchmarks/visual_tokens.py time all attention:16 pool:16 after-4:16
    python benchmarks/visual_tokens.py shapes llava-1.5-7b int4-g128 all attention:144 after-2:144
    python benchmarks/visual_tokens.py draw

A setting is `all`, or a method and a number of tokens; the method `after-4` drops the others after layer 4 of the
language model. It replaces its own row and leaves the others. `time` interleaves the settings in every round, each time
with an engine that has seen nothing, and takes medians. `shapes` does so with random weights of a larger model: what
the choice of so many tokens takes, and the prefill of a prompt of a picture and 64 words. `draw` makes the curve of
docs/visual-tokens.md.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from llavakit.bench.packed_subject import PackedSubject
from llavakit.bench.shapes import find_shapes
from llavakit.checkpoint.formats import read_config
from llavakit.checkpoint.load import Loaded, load, locate
from llavakit.circumstances import circumstances
from llavakit.config import VisualTokens
from llavakit.engine.engine import Engine
from llavakit.engine.sampling import SamplingParams
from llavakit.evaluate.run import run
from llavakit.evaluate.tasks import TASKS
from llavakit.kernels.graph import Dropping
from llavakit.model.reduce import condense
from llavakit.processing import Conversation, open_image
from llavakit.quantize.schemes import SCHEMES

ROUNDS, LARGE_ROUNDS = 21, 5
WORDS = 64  # of a prompt, beside the picture
HERE = Path(__file__).parent
RESULTS = HERE / "visual-tokens.json"
CURVE = HERE.parent / "docs" / "visual-tokens.svg"
COLOURS = {"attention": "#1f6fb4", "pool": "#c2571a", "after-3": "#2c8a4b", "after-4": "#7a4fb0", "after-5": "#555555"}
PICTURE = HERE.parent / "examples" / "drawing.png"


def opened(setting: str) -> Loaded:
    return load("pocket", visual_tokens=visual_tokens(setting))


def visual_tokens(setting: str) -> VisualTokens | None:
    method, _, count = setting.partition(":")
    if not count:
        return None
    if method.startswith("after-"):
        return VisualTokens(count=int(count), after_layer=int(method.removeprefix("after-")))
    return VisualTokens(count=int(count), method=method)


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
    return {setting: summary(rows[1:]) for setting, rows in rounds.items()}


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Medians and ranges of what was measured in several rounds, and where."""
    figures = {
        key: {
            "median": round(statistics.median(row[key] for row in rows), 2),
            "range": [round(pick(row[key] for row in rows), 2) for pick in (min, max)],
        }
        for key in rows[0]
    }
    return figures | {
        key: circumstances(torch.device("cpu"))[key] for key in ("machine", "versions", "commit", "command")
    }


def shape_times(shapes: str, scheme: str, settings: list[str]) -> dict[str, dict[str, Any]]:
    """The same of a model of random weights; what is chosen inside the language model is counted with the prefill."""
    config = find_shapes(shapes)
    subject, vision = PackedSubject(config, SCHEMES[scheme]), config.vision
    features, attention = torch.randn(1, vision.num_patches, vision.hidden_size), torch.rand(1, vision.num_patches)
    rounds: dict[str, list[dict[str, float]]] = {setting: [] for setting in settings}
    for _ in range(LARGE_ROUNDS + 1):  # the first is a warm-up
        encode = milliseconds(subject.encode)
        for setting in settings:
            wanted, choose = visual_tokens(setting), 0.0
            read, dropping = vision.num_patches, None
            if wanted and wanted.after_layer is None:
                choose, read = milliseconds(condense, features, attention, wanted.count), wanted.count
            elif wanted:
                picture = torch.tensor([[WORDS // 2, WORDS // 2 + read, wanted.count]], dtype=torch.int32)
                dropping = Dropping(wanted.after_layer, torch.zeros(1, dtype=torch.int32), picture)
            prefill = milliseconds(subject.prefill, WORDS + read, 0, dropping)
            first = encode + choose + prefill
            rounds[setting].append(
                {"encode_ms": encode, "choose_ms": choose, "prefill_ms": prefill, "first_token_ms": first}
            )
    return {setting: summary(rows[1:]) for setting, rows in rounds.items()}


def milliseconds(call: Callable[..., Any], *arguments: Any) -> float:
    start = perf_counter()
    call(*arguments)
    return 1e3 * (perf_counter() - start)


def keep(part: str, setting: str, row: dict[str, Any]) -> None:
    """Put one row into the file of results."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results.setdefault(part, {})[setting] = row
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def read_on_average(setting: str) -> float:
    """How many visual tokens a layer of the pocket model reads: those dropped after a layer are read up to it."""
    wanted, (config, _) = visual_tokens(setting), read_config(locate("pocket"))
    if wanted is None or wanted.after_layer is None:
        return wanted.count if wanted else config.num_view_tokens
    part = wanted.after_layer / config.language.num_layers
    return part * config.num_view_tokens + (1 - part) * wanted.count


def curve(results: dict[str, Any]) -> str:
    """Accuracy against the visual tokens that a layer reads on average, a line for each method."""
    scores = {setting: row["overall"]["score"] for setting, row in results["scores"].items()}
    whole = scores.pop("all")

    def at(count: float, percent: float) -> str:
        return f"{60 + count * 7:.0f},{330 - (percent - 40) * 7.5:.0f}"

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="600" height="380" font-family="sans-serif" font-size="13">',
        '<rect width="600" height="380" fill="white"/>',
    ]
    for percent in range(40, 81, 10):
        x, y = at(0, percent).split(",")
        parts.append(f'<path d="M{x} {y}H530" stroke="#ddd"/><text x="20" y="{int(y) + 4}">{percent}%</text>')
    for count in (8, 16, 32, 48, 64):
        parts.append(f'<text x="{at(count, 0).split(",")[0]}" y="350" text-anchor="middle">{count}</text>')
    parts.append('<text x="290" y="372" text-anchor="middle">visual tokens that a layer reads, on average</text>')
    for method, colour in COLOURS.items():
        rows = sorted((read_on_average(name), score) for name, score in scores.items() if name.startswith(method))
        if not rows:
            continue
        points = [at(*row) for row in [*rows, (64, whole)]]
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        dots = (point.split(",") for point in points)
        parts += [f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>' for x, y in dots]
        x, y = points[0].split(",")
        parts.append(f'<text x="{int(x) + 10}" y="{int(y) + 16}" fill="{colour}">{method}</text>')
    return "\n".join([*parts, "</svg>", ""])


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
        case ["shapes", shapes, scheme, *settings]:
            for setting, row in shape_times(shapes, scheme, settings).items():
                keep(f"{shapes} {scheme}", setting, row)
                print(setting, json.dumps(row))
        case ["draw"]:
            CURVE.write_text(curve(json.loads(RESULTS.read_text())))
        case _:
            sys.exit(__doc__)
