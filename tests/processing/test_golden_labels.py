"""Ids and labels of training against the original's, for every golden file.

Ours are equal but for `DEVIATIONS`, which says of each sample what the original did instead, and why. Ours are shown
to be right there by what they spell: the assistant's words, the end of each answer, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from llavakit.checkpoint.tokenizer_files import read_tokenizer
from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig
from llavakit.processing import TEMPLATES, Inputs, Processor, render

from .test_templates import conversation_of

PICTURE, IGNORED = -200, -100
Item = dict[str, Any]


@dataclass(frozen=True)
class Deviation:
    """What the original did with a sample and why; `shown` finds the proof of it in what the original returned."""

    did: str
    why: str
    shown: Callable[[Item], bool]
    same_ids: bool
    same_labels: bool = False


def is_discarded(item: Item) -> bool:
    return bool(item["warning"]) and set(item["labels"]) == {IGNORED}


def num_answers(item: Item) -> int:
    turns = item["turns_after_multimodal"]
    return len(turns[len(turns) % 2 + 1 :: 2])


WORDLESS = "an answer without words is taken for one still to come, and gets no end token"
OPEN = Deviation(
    "it learned the other answers, but no end for this one",
    WORDLESS,
    lambda item: item["learned"] > 0 and item["input_ids"].count(2) < num_answers(item),
    same_ids=False,
)
OPEN_DISCARDED = Deviation(
    "it discarded the sample",
    f"{WORDLESS}; then the rounds it counts are not those it wrote",
    lambda item: is_discarded(item) and item["turns_after_multimodal"][1] == "",
    same_ids=False,
)
BARE = Deviation(
    "it wrote a picture without words with no newline after it, and discarded the sample",
    f"a turn's white space is stripped together with the newline that goes with a picture; and {WORDLESS}",
    lambda item: is_discarded(item) and item["turns_after_multimodal"][0].endswith(("<image>", "<im_end>", "</Image>")),
    same_ids=False,
)
ROLE = Deviation(
    "it discarded the sample",
    "rounds are cut at ' ASSISTANT: ', and the user had said that too",
    lambda item: is_discarded(item) and "ASSISTANT: " in item["turns_after_multimodal"][0],
    same_ids=True,
)
UNKNOWN = Deviation(
    "it read the user's '<unk>' as a token and discarded the sample",
    "that token also pads, so what was counted and what is not padding differ by one",
    lambda item: is_discarded(item) and 0 in item["input_ids"],
    same_ids=False,
)
END = Deviation(
    "it read the user's '</s>' as the end token and discarded the sample",
    "rounds are cut at '</s>'",
    lambda item: is_discarded(item) and "</s>" in item["turns_after_multimodal"][0] and 2 in item["input_ids"],
    same_ids=False,
)
SPELT_AND_CUT = Deviation(
    "it read what the user spelt as a special token; the answer lies behind the cut",
    UNKNOWN.why,
    lambda item: bool({0, 2} & set(item["input_ids"])) and item["learned"] == 0,
    same_ids=False,
    same_labels=True,
)
# ChatML and MPT. Their mask is measured by tokenizing each round anew, each time one token off.
MISCOUNTED = Deviation(
    "it discarded the sample",
    "the lengths of the rounds, each measured on its own, do not add up to that of the whole",
    is_discarded,
    same_ids=True,
)
SHIFTED = Deviation(
    "it learned the newline of the header and not the end of an answer",
    "the mask is off by one token, and in a sample of two rounds the errors cancel out, so it is kept",
    lambda item: item["learned_text"].startswith("\n"),
    same_ids=True,
)
SPELT_SHIFTED = Deviation(
    "it read the user's '<unk>' as a token, and learned the newline of the header",
    "the token counts as padding, which makes up for the token by which the lengths are off",
    lambda item: item["learned_text"].startswith("\n") and 0 in item["input_ids"],
    same_ids=False,
)
SPELT_MISCOUNTED = Deviation(
    "it read what the user spelt as a special token, and discarded the sample", MISCOUNTED.why, is_discarded, False
)
WORDLESS_SHIFTED = Deviation(
    "it learned the newline of the header alone",
    f"{WORDLESS}, and the mask is off by one token",
    lambda item: item["learned_text"] == "\n",
    same_ids=False,
)
WORDLESS_MISCOUNTED = Deviation(
    "it discarded the sample", f"{WORDLESS}; {MISCOUNTED.why}", is_discarded, same_ids=False
)
# v0, which has no label for the end of an answer: the hashes of the next header serve.
HEADERS = Deviation(
    "it learned the header of each answer and the hashes before each question",
    "a turn is masked if the user's, and learned from its header on if the assistant's; after the first answer the "
    "lengths, each with a begin token of its own, run ahead of the text by one more token a turn",
    lambda item: item["learned_text"].startswith("### Assistant: "),
    same_ids=True,
)
HEADERS_WORDLESS = Deviation(HEADERS.did, "and a wordless answer has a space", HEADERS.shown, same_ids=False)
HEADERS_SPELT = Deviation(
    "it learned headers, and read what the user spelt as a special token",
    HEADERS.why,
    lambda item: "### Assistant: " in item["learned_text"] and bool({0, 2} & set(item["input_ids"])),
    same_ids=False,
)
HEADERS_UNASKED = Deviation(
    "it learned headers, and an answer that nobody had asked for",
    "here it does not drop what the assistant says first, as it does with every other template",
    lambda item: item["learned_text"].startswith("### Assistant: Child"),
    same_ids=False,
)
# Plain takes one round about one picture; the original stops the training with an assertion.
REFUSED = Deviation("it stopped", "plain holds one picture and one caption", lambda item: "error" in item, False)

NAMES = [
    "single_image", "image_after_text", "image_inside_text", "two_markers_one_turn", "multi_turn_3",
    "multi_turn_text_only", "text_only", "empty_answer", "empty_answer_middle", "unicode", "unicode_text_only",
    "image_in_second_turn", "starts_with_gpt", "spaces_and_newlines", "digits_and_letters", "role_words_in_text",
    "unk_in_text", "eos_in_text", "plain_caption", "plain_caption_long", "plain_caption_empty", "long",
]  # fmt: skip
LLAMA_2 = {
    "empty_answer": OPEN_DISCARDED,
    "empty_answer_middle": OPEN,
    "unk_in_text": UNKNOWN,
    "eos_in_text": END,
    "plain_caption_empty": BARE,
}
V1 = LLAMA_2 | {"role_words_in_text": ROLE}
V0 = dict.fromkeys(NAMES, HEADERS) | {
    "empty_answer": HEADERS_WORDLESS,
    "empty_answer_middle": HEADERS_WORDLESS,
    "plain_caption_empty": HEADERS_WORDLESS,
    "unk_in_text": HEADERS_SPELT,
    "eos_in_text": HEADERS_SPELT,
    "starts_with_gpt": HEADERS_UNASKED,
}
CHATML = dict.fromkeys(NAMES, MISCOUNTED) | {
    "empty_answer": WORDLESS_SHIFTED,
    "empty_answer_middle": WORDLESS_MISCOUNTED,
    "plain_caption_empty": WORDLESS_SHIFTED,
    "unk_in_text": SPELT_SHIFTED,
    "eos_in_text": SPELT_MISCOUNTED,
}
KEPT_ON_A_LEGACY_TOKENIZER = (
    "unicode", "image_in_second_turn", "digits_and_letters", "role_words_in_text", "long"
)  # fmt: skip
DEVIATIONS: dict[str, dict[str, Deviation]] = {
    "v1": V1,
    "v1_legacy_tokenizer": V1,
    "v1_im_start_end": V1,
    "v1_mmtag": V1,
    "v1_maxlen96": {"unk_in_text": SPELT_AND_CUT, "eos_in_text": SPELT_AND_CUT, "plain_caption_empty": BARE},
    "v0_flag": V1,
    "llava_v0": V0,
    "llava_v0_nonlegacy_tokenizer": V0,
    "llama_2": LLAMA_2,
    "llama_2_nonlegacy_tokenizer": LLAMA_2,
    "mistral_instruct": LLAMA_2,
    "chatml_direct": CHATML,
    "chatml_direct_no_bos": CHATML | {"unk_in_text": SPELT_MISCOUNTED},
    "chatml_direct_legacy_tokenizer": CHATML
    | {"unk_in_text": SPELT_MISCOUNTED}
    | dict.fromkeys(KEPT_ON_A_LEGACY_TOKENIZER, SHIFTED),
    "mpt_neox": CHATML | {"unk_in_text": MISCOUNTED, "eos_in_text": MISCOUNTED},
    "plain": dict.fromkeys(
        [
            "multi_turn_3", "multi_turn_text_only", "text_only", "empty_answer_middle", "unicode", "unicode_text_only",
            "image_in_second_turn", "starts_with_gpt", "digits_and_letters", "role_words_in_text", "unk_in_text",
            "eos_in_text", "long",
        ],
        REFUSED,
    ),
}  # fmt: skip
# Which of our templates writes what the original trained with. Its flag `--version v0` changes its padding alone.
OURS = {"v0_flag": "vicuna_v1", "llava_v0": "v0_training", "llava_v0_nonlegacy_tokenizer": "v0_training"}


@dataclass(frozen=True)
class Golden:
    """One file of the original's labels, and a processor with its tokenizer and one feature for a picture."""

    name: str
    items: list[Item]
    deviations: dict[str, Deviation]
    process: Processor
    template: str
    max_length: int


@pytest.fixture(scope="module", params=sorted(DEVIATIONS))
def golden(request: pytest.FixtureRequest, fixtures: Path) -> Golden:
    labels = json.loads((fixtures / "labels" / f"{request.param}.json").read_text())
    folder, size = fixtures / labels["tokenizer"], labels["n_tokens"]
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = SpecialTokens(
        bos=1 if settings.get("add_bos_token") else None,
        eos=2,
        image=size,
        image_start=size - 2 if labels["mm_use_im_start_end"] else None,
        image_end=size - 1 if labels["mm_use_im_start_end"] else None,
    )
    config = LlavaConfig(
        vision=VisionConfig(image_size=14, patch_size=14), language=LanguageConfig(vocab_size=size), tokens=tokens
    )
    process = Processor(config, read_tokenizer(folder, tokens))
    template = OURS.get(request.param, labels["version"])
    return Golden(
        request.param, labels["items"], DEVIATIONS[request.param], process, template, labels["model_max_length"]
    )


def said(item: Item) -> list[str]:
    """The turns as the original has them after its own handling of pictures; an opening of the assistant dropped."""
    turns = item["turns_after_multimodal"]
    for marked in ("<im_start><image><im_end>", "<Image><image></Image>"):
        turns = [turn.replace(marked, "<image>") for turn in turns]
    return turns[len(turns) % 2 :]


def ids_and_labels(inputs: Inputs, golden: Golden) -> tuple[list[int], list[int]]:
    """In the original's terms, cut where it cuts."""
    ids = [PICTURE if id == golden.process.config.tokens.image else id for id in inputs.tokens]
    labels = [id if target else IGNORED for id, target in zip(ids, inputs.targets, strict=True)]
    return ids[: golden.max_length], labels[: golden.max_length]


def test_every_file_is_compared(fixtures: Path) -> None:
    names = {path.stem for path in (fixtures / "labels").glob("*.json")} - {"conversations"}
    assert names == set(DEVIATIONS)


def test_ids_and_labels_equal_the_original_but_where_it_is_known_to_be_wrong(golden: Golden, compared: Any) -> None:
    assert [item["name"] for item in golden.items] == NAMES
    for item in golden.items:
        deviation = golden.deviations.get(item["name"])
        assert deviation is None or deviation.shown(item), item["name"]
        if deviation is REFUSED:
            continue
        ids, labels = ids_and_labels(golden.process(conversation_of(said(item)), template=golden.template), golden)
        theirs = item["input_ids"][: golden.max_length], item["labels"][: golden.max_length]
        if deviation is None:
            about = {"subject": f"labels, {golden.name}", "stage": "ids and labels"}
            compared.equal((ids, labels), theirs, oracle="haotian-liu/LLaVA c121f04", **about)
        else:
            same = ids == theirs[0], labels == theirs[1]
            assert same == (deviation.same_ids, deviation.same_labels), item["name"]


def test_what_the_original_stops_at_is_refused_with_a_sentence(fixtures: Path) -> None:
    raw = json.loads((fixtures / "labels" / "conversations.json").read_text())
    for name in DEVIATIONS["plain"]:
        turns = [turn["value"] for turn in raw[name]["conversations"]]
        with pytest.raises(ValueError, match="This template (holds 2 messages|leaves out what the user says)"):
            render(conversation_of(turns), "plain")


def test_what_is_learned_is_the_answers_and_their_ends(golden: Golden) -> None:
    template, tokenizer = TEMPLATES[golden.template], golden.process.tokenizer
    end = template.answer_suffix + ("</s>" if template.answer_eos else "")
    # A SentencePiece decoder takes off the first space. It put that there itself where a picture stands before.
    taken = " " * (tokenizer.strips_space and template.user_text)
    for item in golden.items:
        if golden.deviations.get(item["name"]) is REFUSED:
            continue
        turns = said(item)
        inputs = golden.process(conversation_of(turns), template=golden.template)
        pairs = zip(inputs.tokens, inputs.targets, strict=True)
        runs = [[id for id, _ in run] for target, run in groupby(pairs, key=lambda pair: pair[1]) if target]
        learned = [tokenizer.detokenize(run, skip_special=False) for run in runs]
        answers = [template.answer_prefix + words if words else "" for words in turns[1::2]]
        assert learned == [(words + end).removeprefix(taken) for words in answers], item["name"]
