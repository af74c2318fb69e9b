"""Which colour has it?"""

from ..scene import Scene
from ..vocabulary import BACKDROPS, COLORS
from .asked import Asked, Voice, capital
from .refer import referable

COLOR_OF = (
    "What color is {it}?", "What is the color of {it}?", "Which color is {it}?", "What color does {it} have?",
    "Tell me the color of {it}.", "Which color does {it} have?", "What color has {it}?",
    "What color would you call {it}?", "Can you tell me the color of {it}?", "What is the color that {it} has?",
    "Tell me which color {it} is.", "I want to know the color of {it}.", "Which color do you see on {it}?",
    "What color did they give {it}?", "Say what color {it} is.", "What color was used for {it}?",
    "Look at {it}. Which color is it?",
)  # fmt: skip
_HELD_OUT = ("In what color is {it} drawn?", "Could you name the color of {it}?")
_BEHIND = ("What color is the background?", "What is the color of the background?", "Which color is the background?")


def color(scene: Scene, voice: Voice) -> Asked | None:
    """The colour of something, or now and then of the background."""
    if voice.rng.random() < 0.12 and scene.background.kind != "landscape":
        return _background(scene, voice)
    found = [(words, item) for words, item in referable(scene, voice.rng, by_color=False) if item.color]
    if not found:
        return _single_color(scene, voice)
    words, item = found[0]
    question = voice.ask(COLOR_OF, _HELD_OUT, it=words)
    return Asked(
        "colour", question, item.color or "", f"{capital(words)} is {item.color}.", wrong=_others(item.color, voice)
    )


def _single_color(scene: Scene, voice: Voice) -> Asked | None:
    """Equal shapes have one colour together."""
    looks = {(item.name, item.color) for item in scene.items}
    if len(looks) != 1 or len(scene.items) < 2 or scene.items[0].kind != "shape":
        return None
    item = scene.items[0]
    plural = item.name + ("es" if item.name.endswith("s") else "s")
    question = voice.ask((f"What color are the {plural}?", f"Which color are the {plural}?"))
    return Asked(
        "colour", question, item.color or "", f"The {plural} are {item.color}.", wrong=_others(item.color, voice)
    )


def _background(scene: Scene, voice: Voice) -> Asked | None:
    name = scene.background.name
    if name == "white" and voice.rng.random() < 0.6:
        return None
    near = [other for other in BACKDROPS if other.split()[-1] != name.split()[-1]]
    question = voice.ask(_BEHIND, ("What is the background color here?",))
    return Asked("colour", question, name, f"The background is {name}.", wrong=tuple(voice.rng.sample(near, 3)))


def _others(name: str | None, voice: Voice) -> tuple[str, ...]:
    return tuple(voice.rng.sample([c for c in COLORS if c != name], 3))
