"""Talk without a picture: greetings, thanks, who are you, and what the words of the drawn world mean."""

import random
from dataclasses import dataclass

from .captions import singular
from .split import Split
from .things import THINGS
from .vocabulary import COUNTS


@dataclass(frozen=True)
class Turn:
    """Something that is said, and what is said to it."""

    asked: tuple[str, ...]
    answers: tuple[str, ...]
    held_out: tuple[str, ...] = ()


GREETINGS = Turn(
    ("Hello", "Hi", "hello!", "hi there", "Hey", "Good morning", "Good evening", "Hello, how are you?",
     "hey, how are you", "hello there", "Hi!"),
    ("Hello! What would you like to know?", "Hello! Show me a picture and ask me about it.", "Hi! How can I help you?"),
    ("Good afternoon", "Greetings!"),
)  # fmt: skip
THANKS = Turn(
    ("Thanks", "thank you", "Thank you very much!", "thanks a lot", "Great, thanks.", "ok thanks", "Thank you!",
     "cool, thank you", "Well done", "Very good!", "good job"),
    ("You are welcome!", "You are welcome. Ask me anything else about the picture.", "My pleasure!"),
    ("Many thanks for that.", "That was helpful, thanks."),
)  # fmt: skip
GOODBYES = Turn(
    ("Goodbye", "bye", "Bye bye!", "See you later", "good night", "see you"),
    ("Goodbye!", "Goodbye! Come back with another picture.", "See you!"),
    ("Farewell!",),
)
WHO = Turn(
    ("Who are you?", "what are you", "What is your name?", "who are you", "Are you a robot?",
     "Tell me about yourself.", "Are you LLaVA?", "What model are you?", "which model is this"),
    ("I am the llavakit pocket model, a small LLaVA. I was trained on drawn scenes and do not know photographs.",
     "I am a small LLaVA called the llavakit pocket model. I know drawn scenes, not photographs."),
    ("May I ask who I am talking to?",),
)  # fmt: skip
ABLE = Turn(
    ("What can you do?", "what can you do", "How can you help me?", "What do you know?", "help",
     "What should I ask you?", "What can I ask you?", "What are you good at?"),
    ("I can talk about drawn pictures: what is in them, how many, which color, where things are, and what is written.",
     "Show me a drawn picture and ask me what is in it, how many things there are, where they are, or what it says."),
    ("In which ways could you be of use to me?",),
)  # fmt: skip
UNABLE = Turn(
    ("Who is the president?", "What is the weather like today?", "Tell me the news.", "Write a poem.",
     "What time is it?", "Who won the game yesterday?", "Tell me a story", "Can you drive a car?",
     "What is the capital of France?", "write some code for me", "How old are you?",
     "Do you know who this person is?", "What is the meaning of life?", "Can you recognise a photograph?",
     "Can you see photos?", "translate this into German", "What is my name?", "Where do I live?",
     "Can you draw a picture?", "Do you like music?"),
    ("I cannot help with that. I can only talk about drawn scenes.",
     "I do not know. I am a small model that only knows drawn scenes.",
     "I can only see drawn scenes, and I do not know about that."),
    ("Explain quantum physics to me.", "Which stocks should I buy?"),
)  # fmt: skip
NO_PICTURE = Turn(
    ("What is in the picture?", "what do you see", "Describe the picture.", "What do you see in the image?",
     "How many things are in the picture?", "What does it say?", "what is this", "Is there a cat in the picture?",
     "Where is the star?", "What color is the circle?"),
    ("There is no picture yet. Please show me one.", "I do not see a picture. Please show me one."),
    ("Give me a full description of this picture.",),
)  # fmt: skip
HELLO_PICTURE = Turn(
    ("Hello", "Hi", "hello!", "Hi there", "Hey", "Here is a picture.", "Look at this.", "I have a picture for you."),
    ("Hello! What would you like to know about the picture?", "I see the picture. What would you like to know?"),
    ("Good afternoon",),
)
_TURNS = ((GREETINGS, 14), (THANKS, 8), (GOODBYES, 8), (WHO, 16), (ABLE, 14), (UNABLE, 14), (NO_PICTURE, 8))
_SIDES = {"triangle": 3, "square": 4, "rectangle": 4, "diamond": 4}
_BASIC = {"the sky": "blue", "grass": "green", "snow": "white", "milk": "white", "the night": "black", "coal": "black",
          "an orange": "orange", "a flamingo": "pink", "chocolate": "brown", "a raven": "black"}  # fmt: skip


def say(turn: Turn, rng: random.Random, split: Split) -> tuple[str, str]:
    """One exchange of words."""
    asked = turn.held_out if split == "heldout" and turn.held_out and rng.random() < 0.5 else turn.asked
    return rng.choice(asked), rng.choice(turn.answers)


def talk(rng: random.Random, split: Split) -> list[tuple[str, str]]:
    """A short conversation about nothing to be seen."""
    said: list[tuple[str, str]] = []
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        if rng.random() < 0.35:
            said.append(_fact(rng))
        else:
            turns, weights = zip(*_TURNS, strict=True)
            said.append(say(rng.choices(turns, weights)[0], rng, split))
    return list(dict(said).items())


def _fact(rng: random.Random) -> tuple[str, str]:
    return rng.choice((_category, _is_a, _color, _sum, _skill, _sides))(rng)


def _category(rng: random.Random) -> tuple[str, str]:
    thing = THINGS[rng.choice([n for n in THINGS if THINGS[n].category in ("animal", "vehicle", "fruit", "tool")])]
    question = rng.choice(
        (f"What is {thing.singular}?", f"what is {thing.singular}", f"What kind of thing is {thing.singular}?")
    )
    return question, f"{_capital(thing.singular)} is {singular(thing.category)}."


def _is_a(rng: random.Random) -> tuple[str, str]:
    kinds = ("animal", "vehicle", "fruit", "tool")
    thing = THINGS[rng.choice([n for n in THINGS if THINGS[n].category in kinds])]
    kind = thing.category if rng.random() < 0.5 else rng.choice([k for k in kinds if k != thing.category])
    answer = f"{_capital(thing.singular)} is {singular(thing.category)}."
    if kind == thing.category:
        return f"Is {thing.singular} {singular(kind)}?", f"Yes, {answer[0].lower()}{answer[1:]}"
    return f"Is {thing.singular} {singular(kind)}?", f"No, {answer[0].lower()}{answer[1:]}"


def _color(rng: random.Random) -> tuple[str, str]:
    natural = (
        "frog",
        "banana",
        "lemon",
        "strawberry",
        "tomato",
        "carrot",
        "broccoli",
        "eggplant",
        "cactus",
        "elephant",
    )
    known = {singular(name): THINGS[name].glyphs[0][1] or "" for name in natural} | _BASIC
    what = rng.choice(sorted(known))
    spelling = rng.choice(("color", "colour"))
    return f"What {spelling} is {what}?", f"{_capital(what)} is {known[what]}."


def _sum(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(1, 5), rng.randint(1, 5)
    if rng.random() < 0.6:
        return rng.choice(
            (f"What is {a} plus {b}?", f"How much is {a} + {b}?", f"{a}+{b}?")
        ), f"{a} plus {b} is {a + b}."
    a += b
    return rng.choice((f"What is {a} minus {b}?", f"How much is {a} - {b}?")), f"{a} minus {b} is {a - b}."


def _skill(rng: random.Random) -> tuple[str, str]:
    flying = ("owl", "parrot", "bat", "butterfly", "bee", "airplane", "helicopter")
    if rng.random() < 0.5:
        name = rng.choice(flying)
        return f"Can {singular(name)} fly?", f"Yes, {singular(name)} can fly."
    name = rng.choice(("cow", "dog", "cat", "pig", "horse", "car", "elephant", "snail", "tree", "house"))
    return f"Can {singular(name)} fly?", f"No, {singular(name)} cannot fly."


def _sides(rng: random.Random) -> tuple[str, str]:
    shape = rng.choice(sorted(_SIDES))
    return (
        f"How many sides does {singular(shape)} have?",
        f"{_capital(singular(shape))} has {COUNTS[_SIDES[shape]]} sides.",
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
