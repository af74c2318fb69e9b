"""Say what there is, in a sentence or in detail; and do not be led to speak of what is not there."""

from ..captions import LONG_WORDINGS, SHORT_WORDINGS, describe, joined, long_caption, phrase, short_caption
from ..scene import Scene
from .asked import Asked, Voice
from .color import COLOR_OF
from .existence import bare
from .position import WHERE
from .refer import absent, absent_colored
from .relation import WHAT_IS_BESIDE
from .size import HOW_LARGE

ONE_SENTENCE = "Provide a one-sentence caption for the provided image."
_LIST = (
    "What do you see?", "What is in the picture?", "What things are in the picture?", "What can you see?",
    "What is in this image?", "List the things in the picture.", "What does the picture show?",
    "What is shown in the picture?", "What does the image show?", "What is in the image?", "List everything you see.",
    "Tell me what you see.", "Tell me what is in the picture.", "What has been drawn?", "What all is in this drawing?",
    "What objects are in the picture?", "Which objects do you see?", "What objects can you see in the image?",
    "Can you list the things in this image?", "What is there to see?", "Can you tell me what is in the picture?",
)  # fmt: skip
_DETAIL = (
    "Describe the picture in detail.", "Describe the picture.", "Describe the image.", "Tell me about the picture.",
    "Please describe everything you see.", "What is going on in this picture? Describe it in detail.",
    "Describe the drawing.", "Describe this image in detail.", "Describe everything in the picture.",
    "Can you describe the picture?", "Please describe the image in detail.", "Tell me everything about the picture.",
    "Tell me all about this image.", "I cannot see the picture. Describe it to me.",
    "Say in detail what is in the picture.", "How would you describe this picture?",
    "Write a description of the image.", "Give a detailed account of the image.",
    "What is in the picture, and where is it?", "Describe all that is to be seen.",
)  # fmt: skip
_DETAIL_HELD_OUT = ("Give me a full description of this picture.", "Explain everything that has been drawn here.")
_ABOUT = (
    "What is next to {it}?", "What stands beside {it}?", "What do you think of {it}?", "Describe {it}.",
    "What is {it} doing?", "Tell me about {it}.", "What else is near {it}?", "Is {it} small or large?",
)  # fmt: skip


def caption(scene: Scene, voice: Voice) -> Asked:
    """All things in one sentence, either as a caption or as an answer to "What do you see?"."""
    description = describe(scene, voice.rng)
    names = [item.name for item in scene.items]
    if voice.rng.random() < 0.5:
        text = short_caption(description, voice.rng.randrange(SHORT_WORDINGS))
        return Asked("caption", ONE_SENTENCE, names, text, brief=False)
    said = joined([phrase(group, size=False) for group in description.groups])
    question = voice.ask(_LIST, ("Which things can be seen in this picture?", "Name all the things you can see."))
    return Asked("caption", question, names, f"I see {said}.", brief=False)


def detail(scene: Scene, voice: Voice) -> Asked:
    """Sizes, places, a relation, the background."""
    text = long_caption(describe(scene, voice.rng), voice.rng.randrange(LONG_WORDINGS))
    names = [item.name for item in scene.items]
    return Asked("detail", voice.ask(_DETAIL, _DETAIL_HELD_OUT), names, text, brief=False)


def absent_(scene: Scene, voice: Voice) -> Asked | None:
    """A question that takes for granted what is not there; the answer says so.

    It is worded like a question about what is there: whether to believe it, only the picture can tell.
    """
    pair = absent_colored(scene, voice.rng) if voice.rng.random() < 0.35 else None
    name = f"{pair[0]} {pair[1]}" if pair else bare(absent(scene, voice.rng))
    families = (WHERE, WHERE, HOW_LARGE, WHAT_IS_BESIDE, _ABOUT) + (() if pair else (COLOR_OF,))
    beside = voice.rng.choice(("to the left of", "to the right of", "above", "below"))
    question = voice.ask(
        voice.rng.choice(families), ("Could you say where {it} stands?",), it=f"the {name}", b=f"the {name}", rel=beside
    )
    return Asked("absent", question, "none", f"There is no {name} in the picture.", brief=False)
