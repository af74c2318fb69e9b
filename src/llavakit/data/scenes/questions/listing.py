"""Which are there of a kind: the shapes, the animals, the vehicles?"""

from ..captions import Group, describe, joined, phrase, singular
from ..scene import Scene
from ..things import THINGS
from .asked import Asked, Voice

_KINDS = ("shape", "animal", "vehicle", "fruit", "tool")
_NONE = 0.1  # how often a kind is asked about of which there is nothing
_WORDINGS = (
    "What {s} are in the picture?", "Which {s} do you see?", "What {s} are there?", "Which {s} are in the picture?",
    "Name the {s}.", "List all {s} in the picture.", "What {s} can you see?", "What {s} have been drawn?",
    "Tell me which {s} there are.", "What {s} does the picture show?", "Which {s} does the image show?",
    "What kinds of {s} are in the image?", "Can you name the {s}?", "Which {s} are to be seen?",
)  # fmt: skip
_HELD_OUT = ("Say which {s} can be found here.",)


def listing(scene: Scene, voice: Voice) -> Asked | None:
    """All of a kind and nothing else, or that there are none."""
    if len(scene.items) < 2:
        return None
    groups = describe(scene, voice.rng).groups
    found = {kind: [group for group in groups if _kind(group) == kind] for kind in _KINDS}
    is_none = voice.rng.random() < _NONE
    kinds = [kind for kind in _KINDS if (not found[kind]) == is_none]
    if not kinds or (is_none and scene.background.kind == "landscape"):
        return None
    kind = voice.rng.choice(kinds)
    question = voice.ask(_WORDINGS, _HELD_OUT, s=f"{kind}s")
    if is_none:
        return Asked(
            "absent", question, "none", f"There is no {singular(kind).split(' ', 1)[1]} in the picture.", brief=False
        )
    names = [group.name for group in found[kind]]
    said = joined([phrase(group, size=False) for group in found[kind]])
    return Asked("list", question, names, f"I see {said}.", brief=False)


def _kind(group: Group) -> str:
    return THINGS[group.name].category if group.kind == "thing" else group.kind
