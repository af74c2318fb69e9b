"""Puts the trained pocket model into the package, with its card.

    python docs/make_pocket.py        after `llava train pocket`, from the folder above runs/

The card is written from the runs' own configurations and metrics and from the reports in benchmarks/; where a report
is not of these very weights, it is left out. So: run this, then `llava evaluate` as the card says, then this again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import yaml

from llavakit.checkpoint.load import load
from llavakit.checkpoint.save import save
from llavakit.evaluate.circumstances import digest
from llavakit.train.recipes import RECIPES, SEQUENCES

HERE = Path(__file__).parent
ROOT = HERE.parent
POCKET = ROOT / "src" / "llavakit" / "pocket"
CURVES = HERE / "pocket"
REPORTS = {"heldout": "Held-out split", "elsewhere": "Drawn in other programs"}
MAKING = HERE / "pocket" / "making.json"  # machine and remarks of the shipped training, kept with the curves


def main() -> None:
    loaded = load("runs/pocket-instruct/model", dtype=torch.float32)
    save(loaded.model, loaded.tokenizer, POCKET, dtype=torch.float16)
    CURVES.mkdir(exist_ok=True)
    for recipe in SEQUENCES["pocket"]:
        shutil.copy(f"runs/{recipe}/curves.png", CURVES / f"{recipe}.png")
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
        *[_scores(name, title) for name, title in REPORTS.items()],
        "## How it was made",
        _making(),
        "## Loss curves",
        "In docs/pocket/, one picture a run: " + ", ".join(f"{recipe}.png" for recipe in SEQUENCES["pocket"]) + ".",
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
    aims = [
        f"| {r['name']} | {r['target']} | {r['score']:.1f} | {_interval(r)} | {r['n']} |" for r in results["targets"]
    ]
    kinds = [f"| {kind} | {r['score']:.1f} | {_interval(r)} | {r['n']} |" for kind, r in results["kinds"].items()]
    forms = [
        f"| {form} | {r['score']:.1f} | {r['kept']['score']:.1f} | {r['n']} |" for form, r in results["forms"].items()
    ]
    if aims:
        lines.append(
            "\n".join(["| aim | % wanted | % reached | 95% interval | questions |", "|---|---|---|---|---|", *aims])
        )
    lines.append("\n".join(["| kind of question | % right | 95% interval | questions |", "|---|---|---|---|", *kinds]))
    lines.append("\n".join(["| form asked for | % right | % in that form | questions |", "|---|---|---|---|", *forms]))
    return "\n\n".join(lines)


def _interval(row: dict) -> str:
    return f"{row['interval'][0]:.1f} to {row['interval'][1]:.1f}"


def _making() -> str:
    rows = ["| run | steps | batch | rate | seed | hours | last loss |", "|---|---|---|---|---|---|---|"]
    for recipe in SEQUENCES["pocket"]:
        config = yaml.safe_load(Path(f"runs/{recipe}/config.yaml").read_text())
        metrics = [json.loads(line) for line in Path(f"runs/{recipe}/metrics.jsonl").read_text().splitlines()]
        rate = f"{config['learning_rate']:g}" + (f", tower {config['vision_rate']:g}" if config["vision_rate"] else "")
        hours = metrics[-1].get("seconds", 0) / 3600
        rows.append(
            f"| {recipe} | {metrics[-1]['step']} | {config['batch_size']} | {rate} | {config['seed']} "
            f"| {hours:.2f} | {metrics[-1]['loss']:.3f} |"
        )
    about = {recipe: RECIPES[recipe].__doc__ for recipe in SEQUENCES["pocket"]}
    making = json.loads(MAKING.read_text())
    told = "\n".join(f"- {remark}" for remark in making["remarks"])
    runs = "\n".join(f"- `{recipe}`: {text}" for recipe, text in about.items())
    return f"`llava train pocket`, on {making['machine']}.\n\n{runs}\n\n" + "\n".join(rows) + f"\n\n{told}"


if __name__ == "__main__":
    main()
