"""From a scene to a record of LLaVA JSON, one function for each kind of data."""

import random
from typing import Any, Literal

from .captions import LONG_WORDINGS, SHORT_WORDINGS, describe, long_caption, short_caption
from .conversation import converse
from .foils import foils
from .questions.describe import ONE_SENTENCE
from .regions import regions
from .sample import sample_scene
from .scene import Scene
from .split import Split, held_out_reasons
from .talk import talk

Record = dict[str, Any]
SampleKind = Literal["captions", "instruct", "talk", "mixed", "language"]

_BRIEF = ("Describe the picture briefly.", "Give a short caption.", "What is in the picture, in a few words?")
_FULL = ("Describe the picture.", "Describe the picture in detail.", "What does the picture show?")
_TALK_SHARE = 0.08  # of the mixed kind


def sample_record(kind: SampleKind, seed: int, index: int, split: Split) -> tuple[Record, Scene | None]:
    """The record of this number and the scene to be drawn for it, if it needs a picture."""
    name = f"{split}-s{seed}-{index:08d}"
    rng = random.Random(f"{kind}/{name}")
    if kind == "talk" or (kind == "mixed" and rng.random() < _TALK_SHARE):
        return talk_record(f"talk-{name}", rng, split), None
    scene = sample_scene(seed, index, split)
    if kind == "language":
        return language_record(scene, f"language-{name}", rng, split), None
    image = f"images/{index // 1000:03d}/{name}.{scene.file_format}"
    if kind == "captions":
        return caption_record(scene, name, image, rng), scene
    return instruct_record(scene, name, image, rng, split), scene


def caption_record(scene: Scene, name: str, image: str, rng: random.Random) -> Record:
    """One question and a caption that names everything, with two false captions and its regions beside it."""
    description = describe(scene, rng)
    short = rng.random() < 0.25
    wording = rng.randrange(SHORT_WORDINGS if short else LONG_WORDINGS)
    write = short_caption if short else long_caption
    return {
        "id": name,
        "image": image,
        "conversations": [
            {"from": "human", "value": f"<image>\n{rng.choice(_BRIEF if short else _FULL)}"},
            {"from": "gpt", "value": write(description, wording)},
        ],
        "foils": foils(description, lambda changed: write(changed, wording), 2, rng),
        "regions": regions(scene),
        "objects": [item.name for item in scene.items],
    }


def instruct_record(scene: Scene, name: str, image: str, rng: random.Random, split: Split) -> Record:
    """A conversation, and for each round its kind and what its answer comes down to."""
    rounds = converse(scene, rng, split)
    said = [(f"<image>\n{r.human}" if k == 0 else r.human, r.gpt) for k, r in enumerate(rounds)]
    record: Record = {
        "id": name,
        "image": image,
        "conversations": _turns(said),
        "kinds": [r.kind for r in rounds],
        "answers": [r.answer for r in rounds],
    }
    if split == "heldout":
        record |= {"held_out": list(held_out_reasons(scene)), "unseen_wording": [r.unseen for r in rounds]}
    return record


def talk_record(name: str, rng: random.Random, split: Split) -> Record:
    """Talk without a picture."""
    said = talk(rng, split)
    return {"id": name, "conversations": _turns(said), "kinds": ["talk"] * len(said), "answers": [""] * len(said)}


def language_record(scene: Scene, name: str, rng: random.Random, split: Split) -> Record:
    """Text alone, to learn the language on: captions of scenes never drawn, and questions that a caption answers."""
    chance, description = rng.random(), describe(scene, rng)
    long = long_caption(description, rng.randrange(LONG_WORDINGS))
    if chance < 0.1:
        said = talk(rng, split)
    elif chance < 0.25:
        said = [("", short_caption(description, rng.randrange(SHORT_WORDINGS)))]
    elif chance < 0.6:
        said = [("", long)]
    else:
        rounds = [r for r in converse(scene, rng, split) if r.human != ONE_SENTENCE]
        said = [(f"{long}\n{r.human}" if k == 0 else r.human, r.gpt) for k, r in enumerate(rounds)]
    return {"id": name, "conversations": _turns(said)}


def _turns(said: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [turn for human, gpt in said for turn in ({"from": "human", "value": human}, {"from": "gpt", "value": gpt})]
