"""The rules, by tables of answers: right ones, wrong ones, and those that only look right."""

from __future__ import annotations

from pathlib import Path

import pytest

from llavakit.data.records import Record
from llavakit.data.scenes.records import sample_record
from llavakit.evaluate.scoring import RULES, grade
from llavakit.evaluate.task import Question
from llavakit.evaluate.tasks.scenes import round_questions
from llavakit.evaluate.words import mentions

Case = tuple[str, str, str | tuple[str, ...], list[str], list[str]]

CASES: list[Case] = [
    (
        "existence", "Is there a cat in the picture?", "yes",
        ["Yes", "yes", "Yes, there is a cat in the picture.", "Yes."],
        ["No", "", "There is a cat. Yes.", "Yesterday", "Cat", "No, yes"],
    ),
    (
        "count", "How many cats are there?", "3",
        ["3", "Three", "There are three cats.", "There are 3 cats, three in all."],
        ["4", "There are three cats and two dogs.", "Thirteen", "13", "", "There are no three cats.", "Many", "3 or 4"],
    ),
    (
        "count", "How many cats are there?", "0",
        ["0", "No", "None", "There is no cat in the picture.", "Zero"],
        ["1", "There is one cat, no dog.", "Cats", "10"],
    ),
    (
        "colour", "What color is the circle?", "red",
        ["Red", "red", "The circle is red.", "It is a red circle."],
        ["Blue", "The circle is red and blue.", "It is not red.", "Reddish", "", "Dark red", "Red or orange", "RED"],
    ),
    (
        "colour", "What color is the background?", "light blue",
        ["Light blue", "The background is light blue."],
        ["Blue", "Dark blue", "Light blue and white", "Light"],
    ),
    ("colour", "What colour is the star?", "gray", ["Grey", "gray", "The star is grey."], ["Black", "Greyish"]),
    (
        "name", "What is this?", "cat",
        ["Cat", "A cat", "It is a cat.", "cats", "The small cat."],
        ["Dog", "It is a cat or a dog.", "It is not a cat.", "Catfish", "Animal", "", "It is a dog, not a cat.",
         'The word "CAT"'],
    ),
    ("name", "What are these?", "circles", ["Circles", "They are three red circles.", "Circle"], ["Ovals", "Shapes"]),
    ("name", "What is it?", "tree", ["Tree", "A tree."], ["Palm tree", "It is a palm tree.", "Street"]),
    ("name", "What is it?", "bread", ["Bread", "It is a loaf of bread.", "Loaves of bread"], ["Breadth", "Loaf"]),
    (
        "position", "Where is the cat?", "top",
        ["Top", "The cat is at the top."],
        ["Top left", "At the top left", "The top and the bottom", "Not at the top", "Stop", ""],
    ),
    (
        "position", "Where is the cat?", "top left",
        ["Top left", "top-left", "The cat is in the top left of the picture."],
        ["Top", "Left", "The left top", "Top right", "Top left or bottom"],
    ),
    ("position", "Where is it?", "center", ["Center", "In the centre", "In the middle."], ["Left", "Center left"]),
    (
        "relation", "Where is the cat in relation to the dog?", "left",
        ["Left", "The cat is to the left of the dog.", "It is to the left of the dog.", "To the left"],
        ["Right", "Left and above", "The dog is to the left of the cat.", "Not to the left",
         "The word is to the left of the cat."],
    ),
    (
        "relation", "What is to the left of the dog?", "cat",
        ["Cat", "The cat is to the left of the dog.", "The cat."],
        ["Dog", "The dog is to the left of the cat.", "The cat is to the right of the dog.", "The cat and the bear",
         "The bear is to the left of the dog.", "The cat, the bear"],
    ),
    ("relation", "Is the cat above the dog?", "no", ["No", "No, the cat is below the dog."], ["Yes", "Below"]),
    ("compare", "Are there more cats than dogs?", "yes", ["Yes", "Yes, there are two cats."], ["No", "Cats"]),
    (
        "compare", "Which are there more of, cats or dogs?", "cats",
        ["Cats", "cats", "There are more cats than dogs."],
        ["Dogs", "There are more dogs than cats.", "There are fewer cats than dogs.", "Cats and circles", ""],
    ),
    (
        "size", "Which is larger, the red circle or the blue circle?", "red circle",
        ["Red circle", "The red circle is larger than the blue circle.", "The large red circle is bigger."],
        ["Circle", "Blue circle", "The red circle is smaller than the blue circle.",
         "The blue circle is larger than the red circle.", "Red"],
    ),
    ("size", "How big is the cat?", "small", ["Small", "The cat is small."], ["Large", "Small or medium", "Not small"]),
    ("size", "What is the smallest thing?", "cat", ["Cat", "The cat is the smallest."], ["The cat is the largest."]),
    (
        "reason", "How many cats would there be with one more?", "4",
        ["4", "Four", "There are three cats. One more makes four."],
        ["3", "There are four cats. One more makes five.", "There are three cats.", ""],
    ),
    (
        "reason", "What color is the thing above the red circle?", "blue",
        ["Blue", "The thing above the red circle is the star, and it is blue."],
        ["Red", "The star is blue and the circle is red.", "It is not blue.", "Star"],
    ),
    (
        "reason", "Which one is different?", "red star",
        ["Red star", "The red star is different. The others are blue stars."],
        ["Star", "Blue star", "The blue star is different. The others are red stars.", "Red"],
    ),
    ("reason", "Which animal can fly?", "owl", ["Owl", "The owl can fly."], ["The owl cannot fly.", "Bee", "Owl, bee"]),
    (
        "reason", "What is the last letter of the word?", "A",
        ["A", "The last letter of the word is A."],
        ["B", "a", "A is the first letter and B", "PANDA", ""],
    ),
    (
        "reading", "What does it say?", "HELLO",
        ["HELLO", 'It says "HELLO".', "The word is HELLO.", 'The word "HELLO" is written in the picture.'],
        ["HELO", "HELLOO", "Hello", "hello", "HELLO WORLD", "HEL LO", 'It says "HELLO" or "HALLO".', "", "H-E-L-L-O"],
    ),
    ("reading", "Read the number.", "647", ["647", "The number is 647."], ["64", "6470", "647 and 3", "647A"]),
    ("reading", "Spell the word.", "C-A-T", ["C-A-T", "The word is spelled C-A-T."], ["CAT", "C-A-T-S", "C A T"]),
    (
        "reading", "Read everything.", "CAT and 12",
        ["CAT and 12", 'It says "CAT" and 12.', 'It says 12 and "CAT".'],
        ["CAT", "12", "CAT and 12 and DOG", "CAT CAT 12"],
    ),
    ("choice", "Which?\nA. cat\nB. dog", "B", ["B"], ["A", "b", "B.", "B. dog", "dog", "", "AB", "The answer is B"]),
    (
        "caption", "What do you see?", ("cat", "circle", "circle", "SUN"),
        ['I see a cat, two red circles and the word "SUN" in blue.', 'Cats, a circle, "SUN"'],
        ["I see a cat and two red circles.", "I see a cat, two red circles and a sun.", "",
         'I see a cat and the words "CIRCLE" and "SUN".'],
    ),
    ("detail", "Describe the picture.", ("tree", "42"), ["A tree and the number 42.", "42, trees."],
        ["A palm tree, 42.", "A tree, 142."]),
    ("list", "What shapes are there?", ("square", "circle"),
        ["I see a red square and two circles.", "A circle, a square"],
        ["I see a red square.", "I see a square, a circle and a star.", "I see a square, a circle and a cat.", ""]),
    (
        "absent", "What color is the red star?", "none",
        ["There is no red star in the picture.", "There isn't a red star.", "I do not see a red star.",
         "It is not there."],
        ["Red", "There is no star in the picture.", "There is no red circle.", "The red star is blue.", "No",
         "There is no red star. It is blue.", "There is no red star. It is at the top.", "There is a red star.", ""],
    ),
]  # fmt: skip


def question(kind: str, text: str, expected: str | tuple[str, ...], reference: str = "") -> Question:
    return Question("a/0", Path("a.png"), text, kind, "sentence", expected, reference)


@pytest.mark.parametrize(
    ("asked", "given", "is_right"),
    [
        pytest.param(
            question(kind, text, expected, right[min(1, len(right) - 1)]), given, verdict, id=f"{kind}: {given}"
        )
        for kind, text, expected, right, wrong in CASES
        for given, verdict in [*((answer, True) for answer in right), *((answer, False) for answer in wrong)]
    ],
)
def test_rule(asked: Question, given: str, is_right: bool) -> None:
    assert grade(asked, given).is_right is is_right


def test_every_rule_has_cases() -> None:
    assert {kind for kind, *_ in CASES} == set(RULES)


def test_what_a_caption_makes_up_is_noted() -> None:
    asked = question("caption", "What do you see?", ("cat", "SUN"))
    said = grade(asked, 'I see a cat, a dog, the words "SUN" and "MOON" and two dogs.')
    assert said.is_right and said.invented == ("MOON", "dog")
    assert grade(asked, '2 cats and the word "SUN".').invented == ()


def sampled(split: str, count: int) -> list[Question]:
    """Questions of the drawn world, without their pictures."""
    found: list[Question | None] = []
    for index in range(count):
        sample, _ = sample_record("instruct", 11, index, split)
        turns = tuple((turn["from"], turn["value"].removeprefix("<image>\n")) for turn in sample["conversations"])
        found += round_questions(Record(sample["id"], Path(sample["image"]), turns, 0, sample))
    return [asked for asked in found if asked is not None]


@pytest.mark.parametrize("split", ["heldout", "train"])
def test_the_world_s_own_answers_are_right(split: str) -> None:
    """And in form, and they make nothing up: a model that answers as it was taught scores 100%."""
    questions = sampled(split, 120)
    assert {asked.kind for asked in questions} == set(RULES)
    for asked in questions:
        verdict = grade(asked, asked.reference)
        assert (verdict.is_right, verdict.in_form, verdict.invented) == (True, True, ()), asked


def test_the_right_answer_to_another_question_is_wrong() -> None:
    """Whenever the other one comes down to something else."""
    by_kind: dict[str, list[Question]] = {}
    for asked in sampled("heldout", 60):
        by_kind.setdefault(asked.kind, []).append(asked)
    for kind in ("existence", "count", "colour", "name", "position", "reading", "choice"):
        for asked in by_kind[kind]:
            for other in by_kind[kind]:
                is_same = asked.expected == other.expected or (
                    kind == "name" and mentions(str(asked.expected)) == mentions(str(other.expected))
                )
                assert is_same or not grade(asked, other.reference).is_right, (asked, other)
