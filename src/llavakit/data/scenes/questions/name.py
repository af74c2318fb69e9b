"""What is it?"""

from ..captions import plural, singular
from ..scene import Scene
from ..things import THINGS
from .asked import Asked, Voice
from .position import named, other_names, what_is_there
from .refer import many

_ONE = (
    "What is this?", "What is it?", "What is shown here?", "What is that?", "What's this?", "What is drawn here?",
    "What thing is this?", "What does this show?", "What is in the picture?", "What do you call this?",
    "What have I drawn?", "Tell me what this is.", "Can you tell me what it is?", "What do you see here?",
    "What is to be seen here?", "Do you know what this is?", "What is the name of this?", "What is this thing?",
    "Say what this is.",
)  # fmt: skip
_ONE_HELD_OUT = ("Could you tell me what this is?", "What has somebody drawn here?")
_MANY = (
    "What are these?", "What are they?", "What are the things in the picture?", "What do you call these?",
    "What things are these?", "What have I drawn several of?", "Tell me what these are.", "Do you know what these are?",
)  # fmt: skip
_OF_COLOR = (
    "Which shape is {c}?", "What shape is {c}?", "What is {c}?", "What is the {c} shape?", "What is the {c} one?",
    "What is the thing in {c}?", "Which shape has been drawn in {c}?", "What has the color {c}?",
    "What shape has the {c} one?", "Look for {c}. Which shape is it?", "Tell me what is {c}.", "Which thing is {c}?",
    "What do you call the {c} shape?", "What has been painted {c}?", "Can you tell me what the {c} thing is?",
)  # fmt: skip
_OF_KIND = (
    "Which {k} is in the picture?", "What {k} do you see?", "Which {k} is it?", "What {k} is there?",
    "Which {k} has been drawn?", "What {k} is this?", "Which {k} can you see?", "Tell me which {k} it is.",
    "There is one {k} in the picture. Which?", "What sort of {k} is there?", "Which {k} did they draw?",
    "What is the name of the {k}?", "Look at the {k}. What is it?",
)  # fmt: skip


def name(scene: Scene, voice: Voice) -> Asked | None:
    """What a single thing, several equal ones, or the one of a colour or at a place is."""
    kinds = {(item.kind, item.name, item.color) for item in scene.items}
    if len(scene.items) == 1:
        return named(voice.ask(_ONE, _ONE_HELD_OUT), scene.items[0], "It", voice)
    if len(kinds) == 1 and not scene.items[0].is_written:
        return _equal(scene, voice)
    return voice.rng.choice((what_is_there, _of_color, _of_kind))(scene, voice)


def _equal(scene: Scene, voice: Voice) -> Asked:
    item, number = scene.items[0], len(scene.items)
    said = f"{item.color} {item.name}" if item.kind == "shape" else item.name
    question = voice.ask(_MANY, ("What kind of things are these?",))
    wrong = tuple(plural(other) for other in other_names(item, voice))
    return Asked("name", question, plural(item.name), f"They are {many(said, number)}.", wrong=wrong)


def _of_color(scene: Scene, voice: Voice) -> Asked | None:
    """The shape of a colour that no other item has."""
    colors = [item.color for item in scene.items]
    shapes = [item for item in scene.items if item.kind == "shape" and colors.count(item.color) == 1]
    if not shapes or any(item.color is None or item.style == "sign" for item in scene.items):
        return None
    item = voice.rng.choice(shapes)
    question = voice.ask(_OF_COLOR, ("Which of the shapes is the {c} one?",), c=item.color)
    return Asked("name", question, item.name, f"The {item.name} is {item.color}.", wrong=other_names(item, voice))


def _of_kind(scene: Scene, voice: Voice) -> Asked | None:
    """The only animal, vehicle or shape of the picture."""
    items = [(item, THINGS[item.name].category if item.kind == "thing" else item.kind) for item in scene.items]
    kinds = [kind for _, kind in items]
    single = [(item, kind) for item, kind in items if kinds.count(kind) == 1 and kind in ("animal", "vehicle", "shape")]
    if not single:
        return None
    item, kind = voice.rng.choice(single)
    question = voice.ask(_OF_KIND, ("What kind of {k} has been drawn?",), k=kind)
    said = singular(f"{item.color} {item.name}") if item.kind == "shape" else singular(item.name)
    return Asked("name", question, item.name, f"It is {said}.", wrong=other_names(item, voice))
