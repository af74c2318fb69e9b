"""From a scene to a record of LLaVA JSON."""

import random
from typing import Any

from .captions import LONG_WORDINGS, SHORT_WORDINGS, describe, long_caption, short_caption
from .foils import foils
from .scene import Scene

Record = dict[str, Any]

_BRIEF = ("Describe the picture briefly.", "Give a short caption.", "What is in the picture, in a few words?")
_FULL = ("Describe the picture.", "Describe the picture in detail.", "What does the picture show?")


def caption_record(scene: Scene, name: str, image: str, rng: random.Random) -> Record:
    """One question and a caption that names everything, with two false captions beside it."""
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
        "objects": [item.name for item in scene.items],
    }
