"""Forms: which one is asked for, and what keeps it."""

from __future__ import annotations

import pytest

from llavakit.evaluate.forms import FORM_PROMPTS, FORMS, asked_form, is_in_form


def test_the_prompts_are_those_of_llava_1_5() -> None:
    assert FORM_PROMPTS == {
        "Answer the question using a single word or phrase.": "word",
        "Answer with the option's letter from the given choices directly.": "letter",
        "Provide a one-sentence caption for the provided image.": "one sentence",
    }
    assert set(FORM_PROMPTS.values()) | {"sentence"} == set(FORMS)


def test_the_end_of_a_question_asks_for_the_form() -> None:
    for prompt, form in FORM_PROMPTS.items():
        assert asked_form(f"What is this?\n{prompt}") == form
        assert asked_form(f"{prompt} Or say more.") == "sentence"
    assert asked_form("What is this?") == "sentence"


@pytest.mark.parametrize(
    ("form", "kept", "broken"),
    [
        ("word", ["Red", "Top left", "one two three four"], ["", "It is red.", "one two three four five", "Red."]),
        ("letter", ["A", "D"], ["", "a", "A.", "AB", "1", "A\n"]),
        (
            "one sentence",
            ["A cat.", 'A picture of the word "STOP" in red.', "It is 1.5 wide."],
            ["A cat. A dog.", "a cat.", "A cat", "", "A cat! A dog.", "Yes."],
        ),
        ("sentence", ["A cat. A dog.", "It is a cat."], ["Cat", "cat.", "a cat is there.", "", "It is a cat", "Cat."]),
    ],
)
def test_what_keeps_a_form(form: str, kept: list[str], broken: list[str]) -> None:
    assert [answer for answer in kept if not is_in_form(answer, form)] == []
    assert [answer for answer in broken if is_in_form(answer, form)] == []
