"""How much of a picture the trained tower names, before any language model reads it; the last line is one JSON.

    llava scenes --kind captions --seed 9 --count 256 --out runs/probe
    python benchmarks/pocket_tower.py runs/pocket-clip runs/probe/captions-train.json

Of every region, the patch that holds its middle chooses among the words for all regions of all the pictures. Counted
are letters that stand alone in their patch, and of things and shapes how much of their words is right.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch

from llavakit.checkpoint.reader import stored_tensors
from llavakit.circumstances import circumstances
from llavakit.data.collate import IGNORE
from llavakit.train.overrides import recipe_config
from llavakit.train.setup import prepare
from llavakit.train.stages import STAGES

LETTER = re.compile(r"[A-Z0-9] in [a-z]+$")
PLACE = re.compile(r" (at|on|in) the (top|left|right|bottom|center).*")


def main(run: str, data: str) -> None:
    config = recipe_config(f"{run}/config.yaml", [f"data={data}", "num_foils=0", "device=cpu"])
    setup = prepare(config)
    model, processor, samples = setup.model.eval(), setup.processor, setup.dataset
    stored = stored_tensors(Path(run) / "model")
    model.load_state_dict({name: stored[name].read() for name in stored})
    batch = STAGES["clip"].collate([samples[index] for index in range(len(samples))], pad=setup.pad)
    words = [
        processor.tokenizer.detokenize(tokens[:length].tolist(), skip_special=True)
        for tokens, length in zip(batch.words, batch.word_lengths, strict=True)
    ]
    with torch.inference_mode():
        patches = model.embed_patches(model.vision.hidden_states(batch.pixels))
        chosen = (patches @ model.embed_texts(batch.words, batch.word_lengths).T).argmax(-1)
    kept = batch.patch_words != IGNORE
    pairs = [(words[a], words[b]) for a, b in zip(batch.patch_words[kept].tolist(), chosen[kept].tolist(), strict=True)]
    letters = [(own, found) for own, found in pairs if LETTER.match(own)]
    drawn = [(own, found) for own, found in pairs if own.startswith(("a small ", "a medium ", "a large "))]
    result = {
        "what": f"{len(samples)} pictures, {len(words)} different words to choose from",
        "letters": _share([own[0] == found[0] and bool(LETTER.match(found)) for own, found in letters]),
        "things and shapes, with size and colour": _share([_looks(own) == _looks(found) for own, found in drawn]),
        "their names alone": _share([_looks(own).split()[-1] == _looks(found).split()[-1] for own, found in drawn]),
        "with place and number as well": _share([own == found for own, found in drawn]),
        **circumstances(torch.device("cpu")),
    }
    print(json.dumps(result))


def _looks(text: str) -> str:
    """`a small red circle` of `a small red circle at the top left, one of two circles`."""
    return PLACE.sub("", text.split(",")[0])


def _share(right: list[bool]) -> dict[str, float]:
    return {"n": len(right), "percent": round(100 * sum(right) / len(right), 1)}


if __name__ == "__main__":
    main(*sys.argv[1:])
