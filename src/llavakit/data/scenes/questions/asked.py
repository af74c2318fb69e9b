"""What every family of questions gives back, and the voice that words them."""

import random
from dataclasses import dataclass

from ..split import Split


@dataclass(frozen=True)
class Asked:
    """A question about a picture and its answer in every form."""

    kind: str
    question: str
    short: str | list[str]  # the answer in a word or two; for a caption, all that it must name
    sentence: str
    wrong: tuple[str, ...] = ()  # short answers that are false, for a question with options
    brief: bool = True  # whether a word or two can be the whole answer


class Voice:
    """Chooses among the wordings of a question; the last ones of each are kept for the held-out split."""

    def __init__(self, rng: random.Random, split: Split) -> None:
        self.rng = rng
        self.split = split
        self.unseen = False  # whether the last wording was a held-out one
        self._truths: dict[str, bool] = {}

    def truth(self, kind: str) -> bool:
        """Whether the next yes-or-no answer of a kind shall be yes: a fair coin, which stays as it fell until it is
        `spent`. Were it thrown again whenever a question fails, the answer that is easier to give would win."""
        if kind not in self._truths:
            self._truths[kind] = self.rng.random() < 0.5
        return self._truths[kind]

    def spent(self, kind: str) -> None:
        """An answer of this kind has been given."""
        self._truths.pop(kind, None)

    def ask(self, wordings: tuple[str, ...], held_out: tuple[str, ...] = (), **slots: object) -> str:
        self.unseen = bool(held_out) and self.split == "heldout" and self.rng.random() < 0.5
        return self.rng.choice(held_out if self.unseen else wordings).format(**slots)


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def yes_or_no(truth: bool) -> str:
    return "yes" if truth else "no"
