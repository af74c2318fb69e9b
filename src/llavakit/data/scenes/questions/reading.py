"""What does it say?"""

from ..captions import at
from ..foils import misspelled
from ..scene import Item, Scene, place
from .asked import Asked, Voice, capital, yes_or_no

_SAYS = (
    "What does it say?", "What is written in the picture?", "What does the {k} say?", "Read the {k}.",
    "What {k} is it?", "Which {k} is written here?", "What is the {k} in the picture?", "Can you read the {k}?",
    "What {k} do you see?", "Read the text.", "What does the text say?", "What does the image say?",
    "What text is in the picture?", "What has been written?", "What is the text?", "Tell me what it says.",
    "Tell me what is written.", "Can you tell me what it says?", "Can you read it?", "Read it to me.",
    "What {k} has been written here?", "Which {k} is in the picture?", "What are the letters?",
    "What does the writing say?", "Please read the {k}.", "Which {k} do you see?", "What is written there?",
    "Tell me the {k} in the image.", "What does this say?",
)  # fmt: skip
_SAYS_HELD_OUT = ("Please read out what is written.", "Which {k} can be read here?")
_THERE = (
    "What is written {there}?",
    "Which {k} is {there}?",
    "What does the {k} {there} say?",
    "Read the {k} {there}.",
)
_WHETHER = ('Does it say "{w}"?', 'Is the {k} "{w}" in the picture?', 'Is "{w}" written in the picture?')


def reading(scene: Scene, voice: Voice) -> Asked | None:
    written = [item for item in scene.items if item.is_written]
    if not written:
        return None
    if len(written) == 1:
        return voice.rng.choices((_says, _whether, _spelled), (80, 12, 8))[0](written[0], voice)
    return _all(written, voice) if voice.rng.random() < 0.35 else _at(scene, written, voice)


def _says(item: Item, voice: Voice) -> Asked:
    question = voice.ask(_SAYS, _SAYS_HELD_OUT, k=item.kind)
    frame = voice.rng.choice(("It says {}.", "The {k} is {}.", "The {k} {} is written in the picture."))
    return Asked("reading", question, item.name, frame.format(quoted(item), k=item.kind), wrong=_misread(item, voice))


def _whether(item: Item, voice: Voice) -> Asked:
    truth = voice.truth("existence")
    asked = item.name if truth else misspelled(item.name, voice.rng)
    question = voice.ask(_WHETHER, ('Can you read "{w}" in the picture?',), w=asked, k=item.kind)
    sentence = f"{'Yes' if truth else 'No'}, it says {quoted(item)}."
    return Asked("existence", question, yes_or_no(truth), sentence, wrong=(yes_or_no(not truth),))


def _spelled(item: Item, voice: Voice) -> Asked | None:
    if item.kind == "number" or len(item.name) > 5:
        return None
    question = voice.ask(("Spell the word.", "How is the word spelled?", "Which letters are in the word?"))
    letters = "-".join(item.name)
    return Asked("reading", question, letters, f"The word is spelled {letters}.")


def _at(scene: Scene, written: list[Item], voice: Voice) -> Asked | None:
    item = voice.rng.choice(written)
    where = place(scene, item)
    if where is None or any(place(scene, other) in (where, None) for other in written if other is not item):
        return None
    question = voice.ask(_THERE, ("What can be read {there}?",), there=at(where), k=item.kind)
    return Asked(
        "reading", question, item.name, f"{capital(at(where))} it says {quoted(item)}.", wrong=_misread(item, voice)
    )


def _all(written: list[Item], voice: Voice) -> Asked:
    question = voice.ask(("What is written in the picture?", "What does it say?", "Read everything that is written."))
    names = " and ".join(item.name for item in written)
    return Asked("reading", question, names, f"It says {' and '.join(quoted(item) for item in written)}.")


def quoted(item: Item) -> str:
    return f'"{item.name}"' if item.kind == "word" else item.name


def _misread(item: Item, voice: Voice) -> tuple[str, ...]:
    others = {misspelled(item.name, voice.rng) for _ in range(8)} - {item.name}
    return tuple(sorted(others)[:3])
