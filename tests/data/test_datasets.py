"""What is learned of a sample, and the sentence for one of which nothing would be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavakit.anyres import num_image_tokens
from llavakit.config import TilingConfig
from llavakit.data.collate import IGNORE
from llavakit.data.datasets import CaptionDataset, ConversationDataset, TextDataset
from llavakit.data.records import DataError, Record, read_records
from llavakit.data.regions import patch_texts, read_regions
from llavakit.processing import Processor

Write = Callable[..., Path]
PICTURE = 4  # placeholders of one picture
ANY = 10_000


def turns(*values: str) -> tuple[tuple[str, str], ...]:
    return tuple((("human", "gpt")[at % 2], value) for at, value in enumerate(values))


@pytest.fixture
def picture(write: Write) -> Path:
    return write().parent / "a.png"


def test_the_answers_and_their_ends_are_learned(processor: Processor, picture: Path) -> None:
    record = Record("r", picture, turns("What?", "Red.", "Sure?", "Yes."), picture_turn=2)
    sample = ConversationDataset([record], processor, template="vicuna_v1", max_length=ANY)[0]
    learned = [token for token, target in zip(sample.tokens, sample.targets, strict=True) if target]
    assert processor.tokenizer.detokenize(learned, skip_special=False) == " Red.</s> Yes.</s>"
    assert sample.pixels.shape == (1, 3, 14, 14)
    # The picture stands where it was shown, in front of the words of that turn.
    text = processor.tokenizer.detokenize(sample.tokens, skip_special=False)
    assert text.endswith("</s>USER: " + "<image>" * PICTURE + "\nSure? ASSISTANT: Yes.</s>")


def test_a_sample_is_cut_at_its_end(processor: Processor, picture: Path) -> None:
    record = Record("r", picture, turns("What?", "Red and green and blue."))
    whole = ConversationDataset([record], processor, template="plain", max_length=ANY)[0]
    cut = ConversationDataset([record], processor, template="plain", max_length=8)[0]
    assert (cut.tokens, cut.targets) == (whole.tokens[:8], whole.targets[:8])
    assert sum(cut.targets) == 8 - PICTURE - 1


@pytest.mark.parametrize(
    ("template", "max_length", "values", "sentence"),
    [
        ("vicuna_v1", 100, ("What?", "Red."), "has no word to learn within its first 100 tokens"),
        ("plain", PICTURE + 1, ("What?", "Red."), "has no word to learn within its first 5 tokens"),
        ("plain", 3, ("What?", "Red."), "has no word to learn within its first 3 tokens"),
        ("plain", ANY, ("a", "b", "c", "d"), "This template holds 2 messages and the conversation has 4"),
    ],
)
def test_nothing_to_learn_is_an_error_that_names_the_sample(
    template: str, max_length: int, values: tuple[str, ...], sentence: str, processor: Processor, picture: Path
) -> None:
    record = Record("r7", picture, turns(*values))
    with pytest.raises(DataError) as caught:
        ConversationDataset([record], processor, template=template, max_length=max_length)[0]
    assert "sample 'r7'" in str(caught.value) and sentence in str(caught.value)


def test_a_picture_is_never_cut(processor: Processor, picture: Path) -> None:
    record = Record("r7", picture, turns("a", "b", "c", "d"), picture_turn=2)
    dataset = ConversationDataset([record], processor, template="vicuna_v1", max_length=ANY)
    start = dataset[0].tokens.index(processor.config.tokens.image)
    with pytest.raises(DataError, match=f"'r7': its picture does not fit within {start + 2} tokens"):
        ConversationDataset([record], processor, template="vicuna_v1", max_length=start + 2)[0]


def test_a_file_that_is_no_picture_names_its_sample(processor: Processor, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_text("no picture")
    record = Record("r7", tmp_path / "b.png", turns("a", "b"))
    with pytest.raises(DataError, match=r"sample 'r7': .*b\.png"):
        ConversationDataset([record], processor, template="vicuna_v1", max_length=ANY)[0]


def test_a_stage_of_pictures_names_a_sample_without_one(processor: Processor) -> None:
    record = Record("r7", None, turns("a", "b"))
    with pytest.raises(DataError, match="sample 'r7': .* there is none"):
        ConversationDataset([record], processor, template="plain", max_length=ANY)[0]
    with pytest.raises(DataError, match="sample 'r7' has no picture"):
        CaptionDataset([record], processor, num_foils=0, with_regions=False, max_length=ANY)[0]


def test_of_text_everything_is_learned(processor: Processor) -> None:
    records = [Record("talk", None, turns("Hi", "Hello")), Record("words", None, turns("", "It is red."))]
    talk, words = (TextDataset(records, processor, template="vicuna_v1", max_length=ANY)[at] for at in (0, 1))
    assert all(talk.targets) and all(words.targets)
    assert processor.tokenizer.detokenize(words.tokens, skip_special=False) == "<s>It is red.</s>"
    assert processor.tokenizer.detokenize(talk.tokens, skip_special=True).endswith("USER: Hi ASSISTANT: Hello")
    assert len(TextDataset(records, processor, template="vicuna_v1", max_length=4)[0].tokens) == 4


def test_captions_come_with_their_foils(processor: Processor, picture: Path) -> None:
    record = Record("r", picture, turns("Say.", "A red field."), extra={"foils": ["A blue field.", "Two fields."]})
    sample = CaptionDataset([record], processor, num_foils=1, with_regions=False, max_length=ANY)[0]
    texts = [processor.tokenizer.detokenize(text, skip_special=False) for text in (sample.caption, *sample.foils)]
    assert texts == ["<s>A red field.</s>", "<s>A blue field.</s>"]


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({}, "sample 'r7' has 0 'foils', but 1 are asked for"),
        ({"foils": "blue"}, "sample 'r7': 'foils' should be a list of captions, not 'blue'"),
        ({"foils": [3]}, "sample 'r7': 'foils' should be a list of captions"),
    ],
)
def test_missing_foils_are_named(extra: dict[str, Any], sentence: str, processor: Processor, picture: Path) -> None:
    record = Record("r7", picture, turns("Say.", "A red field."), extra=extra)
    with pytest.raises(DataError) as caught:
        CaptionDataset([record], processor, num_foils=1, with_regions=False, max_length=ANY)[0]
    assert sentence in str(caught.value)


def test_patches_come_with_their_words(processor: Processor, picture: Path) -> None:
    """A red half and a ground: the words once each, and every patch with its own."""
    with Image.open(picture) as opened:
        width, height = opened.size
    regions = [{"text": "ground"}, {"text": "red", "box": [0, 0, width / 2, height]}]
    record = Record("r", picture, turns("Say.", "A red field."), extra={"regions": regions})
    sample = CaptionDataset([record], processor, num_foils=0, with_regions=True, max_length=ANY)[0]
    words = [processor.tokenizer.detokenize(text, skip_special=True) for text in sample.words]
    told = [None if at == IGNORE else words[at] for at in sample.patch_words]
    assert len(told) == processor.config.vision.num_patches
    assert told == patch_texts(read_regions(regions, ""), (width, height), processor.config.vision, "pad")
    assert {"red", "part of ground"} <= set(told)


def test_missing_regions_are_named(processor: Processor, picture: Path) -> None:
    record = Record("r7", picture, turns("Say.", "A red field."))
    with pytest.raises(DataError, match="sample 'r7': 'regions' should be a list of objects with 'box'"):
        CaptionDataset([record], processor, num_foils=0, with_regions=True, max_length=ANY)[0]


def test_lengths_measure_what_is_read(write: Write, processor: Processor) -> None:
    talk = [{"from": "human", "value": "abc"}, {"from": "gpt", "value": "de"}]
    records = read_records([write({"id": "r", "image": "a.png", "conversations": talk})])
    assert ConversationDataset(records, processor, template="plain", max_length=ANY).lengths == [5]
    assert CaptionDataset(records, processor, num_foils=0, with_regions=False, max_length=ANY).lengths == [2]


def test_captions_are_for_one_view(processor: Processor) -> None:
    tiles = {"resize_mode": "anyres", "tiling": TilingConfig(pinpoints=[(14, 28)])}
    tiled = Processor(processor.config.model_copy(update=tiles), processor.tokenizer)
    with pytest.raises(DataError, match="captions are matched with one view of a picture"):
        CaptionDataset([], tiled, num_foils=0, with_regions=False, max_length=ANY)


def test_a_picture_in_tiles_has_its_size_beside_it(processor: Processor, picture: Path) -> None:
    tiles = {"resize_mode": "anyres", "tiling": TilingConfig(pinpoints=[(28, 14), (14, 28)])}
    tiled = Processor(processor.config.model_copy(update=tiles), processor.tokenizer)
    record = Record("r", picture, turns("What?", "Red."))
    sample = ConversationDataset([record], tiled, template="plain", max_length=ANY)[0]
    assert sample.sizes == [(9, 5)]
    assert sample.pixels.shape == (3, 3, 14, 14)
    assert sample.tokens.count(tiled.config.tokens.image) == num_image_tokens(9, 5, tiled.config)
