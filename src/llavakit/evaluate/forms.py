"""The form in which an answer is asked for, and whether it was kept."""

from __future__ import annotations

import re

from llavakit.data.scenes.conversation import BY_LETTER, ONE_WORD
from llavakit.data.scenes.questions.describe import ONE_SENTENCE

FORM_PROMPTS = {ONE_WORD: "word", BY_LETTER: "letter", ONE_SENTENCE: "one sentence"}
"""The format prompts of LLaVA-1.5 (Liu et al. 2023, appendix), which end a question, and the form each asks for."""

FORMS = ("word", "letter", "one sentence", "sentence")
MOST_WORDS = 4

_END = re.compile(r"[.!?](?=\s|$)")


def asked_form(question: str) -> str:
    """The form that the end of a question asks for; `sentence` where it asks for none."""
    return next((form for prompt, form in FORM_PROMPTS.items() if question.rstrip().endswith(prompt)), "sentence")


def is_in_form(answer: str, form: str) -> bool:
    """Whether an answer has the form asked for.

    `word`: one to four words, no full stop. `letter`: one capital letter and nothing else. `one sentence`: exactly one
    sentence. `sentence`: one or more. A sentence begins with a capital and ends with a full stop.
    """
    match form:
        case "word":
            return 1 <= len(answer.split()) <= MOST_WORDS and not answer.rstrip().endswith(".")
        case "letter":
            return re.fullmatch(r"[A-Z]", answer) is not None
        case "one sentence":
            return _is_sentence(answer) and len(_END.findall(answer)) == 1
        case "sentence":
            return _is_sentence(answer)
    raise AssertionError(f"there is no form {form!r}")


def _is_sentence(answer: str) -> bool:
    return answer[:1].isupper() and answer.endswith(".") and len(answer.split()) > 1
