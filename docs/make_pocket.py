"""Puts the trained pocket model into the package, with its card.

    python docs/make_pocket.py        after the runs that docs/pocket/making.json lists, from the folder above runs/

The weights are those of the last run listed. The card is written from the runs' own configurations and metrics and
from the reports in benchmarks/; where a report is not of these very weights, it is left out. So: run this, then
`llava evaluate` as the card says, then this again.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import torch
import yaml

from llavakit.checkpoint.load import load
from llavakit.checkpoint.save import save
from llavakit.circumstances import digest

HERE = Path(__file__).parent
ROOT = HERE.parent
POCKET = ROOT / "src" / "llavakit" / "pocket"
CURVES = HERE / "pocket"
REPORTS = {"heldout": "Held-out split", "elsewhere": "Drawn in other programs"}
MAKING = json.loads((CURVES / "making.json").read_text())  # machine, runs in order and remarks, kept with the curves
RUNS = [run["name"] for run in MAKING["runs"]]
HELD_OUT = "llava scenes --kind instruct --split heldout --count 800 --seed 100 --out runs/pocket-data/heldout"


def main() -> None:
    loaded = load(f"runs/{RUNS[-1]}/model", dtype=torch.float32)
    save(loaded.model, loaded.tokenizer, POCKET, dtype=torch.float16)
    for old in CURVES.glob("*.png"):
        old.unlink()
    for run in RUNS:
        shutil.copy(f"runs/{run}/curves.png", CURVES / f"{run}.png")
    save(loaded.model, loaded.tokenizer, POCKET, dtype=torch.float16, card=card(loaded.model))


def card(model: torch.nn.Module) -> str:
    """The text of the card."""
    parts = {
        name: sum(p.numel() for p in getattr(model, name).parameters()) for name in ("vision", "projector", "language")
    }
    size = (POCKET / "model.safetensors").stat().st_size
    sections = [
        "# pocket",
        "A genuine LLaVA of the drawn world: a CLIP tower, a projector and a Llama, each trained by this project from "
        "random weights. **It knows drawn scenes, not photographs**: shapes, colours, everyday things as emoji, words "
        "in capitals of up to seven letters, and how they stand to each other. Shown a photograph it will answer, and "
        "be wrong.",
        f"{sum(parts.values()):,} parameters ("
        + ", ".join(f"{name} {count:,}" for name, count in parts.items())
        + f"), "
        f"{size / 1e6:.1f} MB in float16. A picture is padded to a square, brought to 128 x 128 pixels and becomes 64 "
        "tokens; the context is 1,024 tokens. Template `vicuna_v1`.",
        "## Scores",
        f"The held-out pictures are drawn by `{HELD_OUT}`; those of other programs are in benchmarks/elsewhere/.",
        *[_scores(name, title) for name, title in REPORTS.items()],
        "## How it was made",
        _making(),
        "## Loss curves",
        "In docs/pocket/, one picture a run: " + ", ".join(f"{run}.png" for run in RUNS) + ".",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _scores(name: str, title: str) -> str:
    path = ROOT / "benchmarks" / f"pocket-{name}.json"
    if not path.is_file():
        return ""
    report = json.loads(path.read_text())
    if report["model"]["sha256"] != digest(POCKET / "model.safetensors"):
        return ""
    results = report["results"]
    lines = [f"### {title}", f"`{report['command']}` ({report['asked']['questions']} questions, greedy)"]
    frozen = _frozen(report)
    aims = [
        f"| {r['name']} | {r['target']} | {frozen[r['name']]}{r['score']:.1f} | {_interval(r)} | {r['n']} |"
        for r in results["targets"]
    ]
    kinds = [f"| {kind} | {r['score']:.1f} | {_interval(r)} | {r['n']} |" for kind, r in results["kinds"].items()]
    forms = [
        f"| {form} | {r['score']:.1f} | {r['kept']['score']:.1f} | {r['n']} |" for form, r in results["forms"].items()
    ]
    if aims:
        columns = ["aim", "% wanted", *["% before the tower learned along"] * any(frozen.values()), "% reached"]
        heads = [*columns, "95% interval", "questions"]
        lines.append("\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *aims]))
    lines.append("\n".join(["| kind of question | % right | 95% interval | questions |", "|---|---|---|---|", *kinds]))
    lines.append("\n".join(["| form asked for | % right | % in that form | questions |", "|---|---|---|---|", *forms]))
    return "\n\n".join(lines)


def _frozen(report: dict) -> defaultdict[str, str]:
    """What the model scored on the same questions before the run in which its tower learned along, by aim."""
    before = json.loads((ROOT / "benchmarks" / "pocket-frozen.json").read_text())
    if before["data"] != report["data"]:
        return defaultdict(str)
    return defaultdict(str, {row["name"]: f"{row['score']:.1f} | " for row in before["results"]["targets"]})


def _interval(row: dict) -> str:
    return f"{row['interval'][0]:.1f} to {row['interval'][1]:.1f}"


def _making() -> str:
    rows = ["| run | steps | batch | rate | seed | hours | last loss |", "|---|---|---|---|---|---|---|"]
    for run in RUNS:
        config = yaml.safe_load(Path(f"runs/{run}/config.yaml").read_text())
        metrics = [json.loads(line) for line in Path(f"runs/{run}/metrics.jsonl").read_text().splitlines()]
        rate = f"{config['learning_rate']:g}" + (f", tower {config['vision_rate']:g}" if config["vision_rate"] else "")
        hours = f"{metrics[-1]['seconds'] / 3600:.2f}" if "seconds" in metrics[-1] else "see below"
        rows.append(
            f"| {run} | {metrics[-1]['step']} | {config['batch_size']} | {rate} | {config['seed']} "
            f"| {hours} | {metrics[-1]['loss']:.3f} |"
        )
    runs = "\n".join(f"{k}. `{run['command']}`: {run['about']}" for k, run in enumerate(MAKING["runs"], 1))
    remarks = "\n".join(f"- {remark}" for remark in MAKING["remarks"])
    return f"On {MAKING['machine']}, in this order:\n\n{runs}\n\n" + "\n".join(rows) + f"\n\n{remarks}"


if __name__ == "__main__":
    main()
