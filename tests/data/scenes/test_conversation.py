"""Conversations: balanced, true, in the form that was asked for, and worded as the split allows.

The truths are worked out here once more, from the scene alone and in another way.
"""

import re
from collections import Counter, defaultdict

import pytest

from llavakit.data.scenes.captions import plural
from llavakit.data.scenes.conversation import BY_LETTER, ONE_WORD
from llavakit.data.scenes.questions.describe import ONE_SENTENCE
from llavakit.data.scenes.records import sample_record
from llavakit.data.scenes.split import held_out_together
from llavakit.data.scenes.things import THINGS
from llavakit.data.scenes.vocabulary import COLORS, SHAPES

KINDS = {
    "existence", "name", "count", "colour", "position", "relation", "compare", "reading", "caption", "detail", "absent",
    "list", "choice", "size", "reason", "talk",
}  # fmt: skip


def _rounds(split, count):
    for index in range(count):
        record, scene = sample_record("instruct", 8, index, split)
        said = [turn["value"] for turn in record["conversations"]]
        unseen = record.get("unseen_wording", [False] * len(record["kinds"]))
        for k, kind in enumerate(record["kinds"]):
            yield scene, kind, said[2 * k], said[2 * k + 1], record["answers"][k], unseen[k], k


TRAIN = list(_rounds("train", 5000))
HELD_OUT = list(_rounds("heldout", 1200))


def test_conversations_have_the_shape_of_llava_json():
    for index in range(50):
        record, _ = sample_record("instruct", 8, index, "train")
        turns = record["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert len(record["kinds"]) == len(record["answers"]) == len(turns) // 2
        assert turns[0]["value"].startswith("<image>\n")
        assert not any("<image>" in turn["value"] for turn in turns[1:])


def test_every_kind_is_asked():
    assert {kind for _, kind, *_ in TRAIN} == {kind for _, kind, *_ in HELD_OUT} == KINDS


@pytest.mark.parametrize("kind", ["existence", "relation", "compare"])
def test_no_is_as_frequent_as_yes(kind):
    answers = Counter(answer for _, asked, _, _, answer, *_ in TRAIN if asked == kind and answer in ("yes", "no"))
    total = answers["yes"] + answers["no"]
    assert abs(answers["yes"] / total - 0.5) < (0.02 if kind == "existence" else 0.06)


def test_no_colour_number_or_place_is_a_good_guess():
    answers = defaultdict(Counter)
    for _, kind, _, _, answer, *_ in TRAIN:
        if isinstance(answer, str):
            answers[kind][answer] += 1
    assert all(0.05 < answers["colour"][color] / answers["colour"].total() < 0.16 for color in COLORS)
    assert max(answers["count"].values()) / answers["count"].total() < 0.26
    assert max(answers["position"].values()) / answers["position"].total() < 0.17


def test_the_format_prompt_decides_the_form():
    shares = Counter()
    for _, kind, human, gpt, answer, *_ in TRAIN:
        if human.endswith(ONE_WORD):
            shares["short"] += 1
            assert gpt.lower() == answer.lower() and not gpt.endswith(".")
        elif human.endswith(BY_LETTER):
            shares["letter"] += 1
            assert kind == "choice" and re.search(rf"^{gpt}\. ", human, re.M) and gpt == answer
        else:
            assert gpt[-1] in ".!?", (human, gpt)
        if ONE_SENTENCE in human:
            assert kind == "caption" and gpt.count(".") == 1
    assert 0.30 < shares["short"] / len(TRAIN) < 0.42
    assert 0.05 < shares["letter"] / len(TRAIN) < 0.18


def test_a_picture_is_described_once_and_mostly_last():
    """A description gives the answers to other questions away, and a second one would only repeat the first."""
    said = [sample_record("instruct", 8, index, "train")[0]["kinds"] for index in range(1000)]
    told = [[kind in ("caption", "detail") for kind in kinds if kind != "talk"] for kinds in said]
    assert max(map(sum, told)) == 1
    last = [kinds[-1] for kinds in told if any(kinds)]
    assert 0.75 < sum(last) / len(last) < 0.92


def test_no_absence_gives_a_held_out_pair_away():
    """What never stands together in training is not asked about there either: "no" would be learned by heart."""
    asked = 0
    for scene, kind, human, _, answer, *_ in TRAIN:
        if kind != "existence" or answer != "no":
            continue
        forms = {name: rf"\b({re.escape(THINGS[name].singular)}|{plural(name)})\b(?! of )" for name in THINGS}
        named = [name for name, form in forms.items() if re.search(form, human)]
        asked += len(named)
        assert not any(held_out_together(name, item.name) for name in named for item in scene.items), human
    assert asked > 500


def test_what_is_there_is_there():
    for scene, kind, human, gpt, answer, *_ in TRAIN + HELD_OUT:
        if kind != "existence" or gpt.startswith(("Yes", "No")) is False or '"' in human or "any animals" in human:
            continue
        asked = re.sub(r"\bgrey\b", "gray", human)
        shape = re.search(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})", asked)
        if shape:
            there = any((item.color, item.name) == shape.groups() for item in scene.items)
            assert (answer == "yes") == there, (human, gpt)


def test_numbers_are_right():
    by_plural = {plural(name): name for name in [*THINGS, *SHAPES]}
    checked = 0
    for scene, kind, human, _, answer, *_ in TRAIN + HELD_OUT:
        if kind != "count":
            continue
        asked = re.sub(r"\bgrey\b", "gray", human)
        names = [name for words, name in by_plural.items() if re.search(rf"\b{words}\b", asked)]
        name = max(names, key=len)
        color = next((c for c in COLORS if f"{c} {plural(name)}" in asked), None)
        number = sum(item.name == name and color in (None, item.color) for item in scene.items)
        assert answer == str(number), human
        checked += 1
    assert checked > 300


def test_places_and_relations_are_right():
    for scene, kind, human, gpt, answer, *_ in TRAIN + HELD_OUT:
        names = [item for item in scene.items if re.search(rf"\b{re.escape(item.name)}\b", human)]
        if kind == "position" and len(names) == 1:
            x, y = names[0].center
            column = "left" if x < scene.width / 3 else "right" if x > scene.width * 2 / 3 else ""
            row = "top" if y < scene.height / 3 else "bottom" if y > scene.height * 2 / 3 else ""
            assert answer == (f"{row} {column}".strip() or "center")
        sides = re.match(r"(?:Yes|No), the (.+) is (to the left of|to the right of|above|below) the (.+)\.$", gpt)
        if kind == "relation" and sides:
            one, words, other = sides.groups()
            a = [item for item in scene.items if item.name == one]
            b = [item for item in scene.items if item.name == other]
            if len(a) == len(b) == 1:
                (ax, ay), (bx, by) = a[0].center, b[0].center
                assert {"to the left of": ax < bx, "to the right of": ax > bx, "above": ay < by, "below": ay > by}[
                    words
                ]


def test_what_is_read_is_written_and_what_is_absent_is_absent():
    for scene, kind, _, gpt, answer, *_ in TRAIN + HELD_OUT:
        if kind == "reading" and "-" not in answer:
            assert all(letters in {item.name for item in scene.items} for letters in answer.split(" and "))
        if kind == "absent":
            missing = gpt.removeprefix("There is no ").removesuffix(" in the picture.")
            assert missing not in {item.name for item in scene.items} | {f"{i.color} {i.name}" for i in scene.items}


def test_held_out_wordings_are_never_trained_on():
    trained = {_masked(human) for _, _, human, *_ in TRAIN}
    unseen = {_masked(human) for _, kind, human, _, _, unseen, _ in HELD_OUT if unseen and kind != "choice"}
    assert len(unseen) > 20
    assert not trained & unseen
    share = sum(unseen for *_, unseen, _ in HELD_OUT) / len(HELD_OUT)
    assert 0.3 < share < 0.6


def test_training_does_not_speak_of_held_out_pairs():
    assert not any("green heart" in human + gpt or "blue star" in human + gpt for _, _, human, gpt, *_ in TRAIN)


_NAMES = sorted([*THINGS, *map(plural, THINGS), *SHAPES, *map(plural, SHAPES), *COLORS, "grey"], key=len, reverse=True)
_NAME = re.compile(rf"\b(an? )?({'|'.join(map(re.escape, _NAMES))})\b")


def _masked(question):
    """A question without what it is about."""
    question = question.removeprefix("<image>\n").split("\n")[0].lower().rstrip("?.").replace("colour", "color")
    return _NAME.sub("_", question)
