"""Conversations to ids: against the original's ids and labels, and law 7 on the level of tokens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavakit.config import LanguageConfig, LlavaConfig, SpecialTokens, VisionConfig
from llavakit.processing import Conversation, Processor, TextSegment, Tokenizer, render, train_tokenizer

LAW = settings(max_examples=40, deadline=None)  # no timed assertions

PIXEL = Image.new("RGB", (3, 2), "red")
TOKENIZER = train_tokenizer(["USER: what is it? ASSISTANT: It is a red circle.", " ASSISTANT: 1 2 3 <image>"] * 9, 300)


def processor(*, template: str = "vicuna_v1", **vision: Any) -> Processor:
    config = LlavaConfig(
        vision=VisionConfig(**{"image_size": 28, "patch_size": 14, **vision}),
        language=LanguageConfig(vocab_size=TOKENIZER.size),
        tokens=TOKENIZER.tokens,
        template=template,
    )
    return Processor(config, TOKENIZER)


def golden_processor(fixtures: Path, *, legacy: bool) -> Processor:
    """The golden SentencePiece vocabulary, with one feature for a picture as the original's one placeholder."""
    spec = json.loads((fixtures / "tokenizers" / "mistral" / "tokenizer.json").read_text())
    if not legacy:
        spec["normalizer"] = None
        spec["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": "\u2581",
            "prepend_scheme": "first",
            "split": False,
        }
    # Its own vocabulary has no placeholder; one is added behind it.
    image = 544
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": image, "content": "<image>"})
    tokens = SpecialTokens(bos=1, eos=2, pad=0, image=image)
    config = LlavaConfig(
        vision=VisionConfig(image_size=14, patch_size=14),
        language=LanguageConfig(vocab_size=545),
        tokens=tokens,
    )
    return Processor(config, Tokenizer(json.dumps(spec), tokens))


def conversation_in(prompt: str) -> Conversation | None:
    """The conversation behind a prompt of the original; None if a picture stands where our templates put none."""
    conversation = Conversation()
    for index, turn in enumerate(re.split(r" ?USER: | ASSISTANT:|</s>USER: ", prompt.removesuffix("</s>"))[1:]):
        if index % 2:
            conversation = conversation.answer(turn.removeprefix(" ")) if turn else conversation
            continue
        words, *after_pictures = turn.split("<image>")
        if not all(text.startswith("\n") for text in after_pictures):
            return None
        parts: list[str | Image.Image] = [words]
        for text in after_pictures:
            parts += [PIXEL, text.removeprefix("\n")]
        conversation = conversation.ask(*parts)
    return conversation


def test_prompts_equal_the_ids_the_original_generated_from(fixtures: Path) -> None:
    process = golden_processor(fixtures, legacy=False)
    compared = 0
    for case in json.loads((fixtures / "cases" / "v15-mlp.json").read_text())["cases"]:
        conversation = conversation_in(case["prompt"])
        if conversation is None:
            continue
        ids = [-200 if id == process.config.tokens.image else id for id in process(conversation).tokens]
        assert ids == case["input_ids"], case["name"]
        compared += 1
    assert compared >= 18


WORDS = st.text(max_size=10) | st.sampled_from(["<image>", "</s>", "<s>", " ASSISTANT: ", "USER: ", "\n", "", " a "])


@given(turns=st.lists(st.tuples(st.integers(0, 2), WORDS, WORDS), min_size=1, max_size=4))
@LAW
def test_targets_cover_the_answers_and_the_end_tokens(turns: list[tuple[int, str, str]]) -> None:
    conversation = Conversation()
    for num_pictures, question, answer in turns:
        conversation = conversation.ask(*[PIXEL] * num_pictures, question).answer(answer)
    inputs = processor()(conversation)
    learned = [id for id, target in zip(inputs.tokens, inputs.targets, strict=True) if target]
    eos = TOKENIZER.special("eos")
    answers: list[list[int]] = [[]]
    for id in learned:
        if id == eos:
            answers.append([])
        else:
            answers[-1].append(id)
    said = [TOKENIZER.detokenize(ids).removeprefix(" ") for ids in answers[:-1]]
    assert answers[-1] == []
    assert said == [answer.encode("utf-8", "replace").decode() for _, _, answer in turns]
    assert inputs.tokens.count(TOKENIZER.special("bos")) == 1
    assert inputs.tokens.count(TOKENIZER.special("image")) == 4 * sum(n for n, _, _ in turns)


def test_placeholders_spans_and_pixels() -> None:
    process = processor(feature_select="full")
    inputs = process(Conversation().ask(PIXEL, "this or ", PIXEL.rotate(90), "that"))
    assert inputs.pixels is not None
    assert inputs.pixels.shape == (2, 3, 28, 28)
    assert inputs.pixels.dtype == torch.float32
    assert [stop - start for start, stop in inputs.spans] == [5, 5]
    placeholders = {position for start, stop in inputs.spans for position in range(start, stop)}
    image = process.config.tokens.image
    assert {position for position, id in enumerate(inputs.tokens) if id == image} == placeholders
    assert not any(inputs.targets)
    assert torch.equal(inputs.pixels[:1], process.pixels(PIXEL))


def test_words_alone_have_no_pixels() -> None:
    inputs = processor()(Conversation().ask("Hello"))
    assert inputs.pixels is None
    assert inputs.spans == []


def test_pictures_of_any_mode_are_taken_as_they_are_meant() -> None:
    process = processor()
    clear = Image.new("RGBA", (4, 8), (0, 0, 0, 0))
    white = Image.new("RGB", (4, 8), "white")
    inputs = process(Conversation().ask(clear, "?"))
    assert inputs.pixels is not None
    assert torch.equal(inputs.pixels, process.pixels(white))


def test_a_model_without_a_begin_token_gets_none() -> None:
    tokens = TOKENIZER.tokens.model_copy(update={"bos": None})
    config = LlavaConfig(language=LanguageConfig(vocab_size=TOKENIZER.size), tokens=tokens)
    inputs = Processor(config, TOKENIZER)(Conversation(system="").ask("Hi"))
    assert TOKENIZER.detokenize(inputs.tokens, skip_special=False) == "USER: Hi ASSISTANT:"


def test_the_earlier_turns_of_a_longer_conversation_are_the_same_tokens() -> None:
    """So that what was computed for them can be kept (facts 6.24)."""
    process = processor()
    first = Conversation().ask(PIXEL, "What is it?")
    prompt = process(first).tokens
    later = process(first.answer("It is a circle.").ask("Which colour?")).tokens
    assert later[: len(prompt)] == prompt


def test_segments_are_tokenized_once_each() -> None:
    process = processor()
    segments = render(Conversation().ask("Hi").answer("Yes"), "vicuna_v1")
    inputs = process.tokenize_segments(segments, [])
    words = "".join(segment.text for segment in segments if isinstance(segment, TextSegment))
    assert TOKENIZER.detokenize(inputs.tokens) == words
    assert inputs.pixels is None


def test_refusals_are_sentences() -> None:
    with pytest.raises(ValueError, match="did you mean 'plain'"):
        processor()(Conversation().ask("Hi"), template="plane")
    with pytest.raises(ValueError, match="do not belong together"):
        Processor(LlavaConfig(language=LanguageConfig(vocab_size=10), tokens=SpecialTokens(image=3)), TOKENIZER)
