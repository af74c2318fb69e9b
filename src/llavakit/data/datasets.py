"""Records into samples: what is read from disk, rendered, tokenised and turned into pixels, one item at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL.Image import Image
from torch.utils.data import Dataset

from llavakit.data.collate import IGNORE, CaptionSample, Sample
from llavakit.data.records import DataError, Record
from llavakit.data.regions import patch_texts, read_regions
from llavakit.processing import Conversation, Inputs, Picture, Processor, open_image


class RecordDataset(Dataset):
    """Records behind an index, each made into a sample when asked for; raises `DataError` naming a bad one."""

    def __init__(self, records: Sequence[Record], processor: Processor, *, max_length: int) -> None:
        self.records, self.processor, self.max_length = records, processor, max_length

    def __len__(self) -> int:
        return len(self.records)

    @property
    def lengths(self) -> list[int]:
        """A cheap measure of each sample, for putting like beside like: the characters of its turns."""
        return [sum(len(words) for _, words in record.turns) for record in self.records]


class RenderedDataset(RecordDataset):
    """Records whose conversations a template writes down."""

    def __init__(self, records: Sequence[Record], processor: Processor, *, template: str, max_length: int) -> None:
        super().__init__(records, processor, max_length=max_length)
        self.template = template


class ConversationDataset(RenderedDataset):
    """Pictures and talk about them: the assistant's words and end tokens are learned, cut at `max_length` tokens.

    Raises `DataError` naming the sample when no token of it would be learned.
    """

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        inputs = _inputs(self.processor, _with_picture(record), record, template=self.template)
        targets = inputs.targets[: self.max_length]
        if not any(targets):
            raise DataError(
                f"sample {record.id!r} has no word to learn within its first {self.max_length} tokens; "
                "raise max_length or take the sample out"
            )
        if any(end > self.max_length for _, end in inputs.spans):
            raise DataError(f"sample {record.id!r}: its picture does not fit within {self.max_length} tokens")
        return Sample(inputs.tokens[: self.max_length], targets, inputs.pixels, inputs.sizes)


class TextDataset(RenderedDataset):
    """Text alone, every token learned: a conversation as the template renders it, or bare words if nobody asked."""

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        if record.turns[0][1]:
            tokens = _inputs(self.processor, record.conversation(), record, template=self.template).tokens
        else:
            tokens = tokenize_whole(self.processor, record.turns[1][1])
        tokens = tokens[: self.max_length]
        return Sample(tokens, [True] * len(tokens))


class CaptionDataset(RecordDataset):
    """Pictures with a caption; with captions that are wrong in one detail (`foils` in the record); with words for
    each patch (from `regions` in the record). Raises `DataError` for a sample without what is asked for, and for a
    model that sees pictures in tiles: a caption is matched with one view.
    """

    def __init__(
        self, records: Sequence[Record], processor: Processor, *, num_foils: int, with_regions: bool, max_length: int
    ) -> None:
        super().__init__(records, processor, max_length=max_length)
        if processor.config.resize_mode == "anyres":
            raise DataError(
                "captions are matched with one view of a picture, so resize_mode 'anyres' is of no use here"
            )
        self.num_foils, self.with_regions = num_foils, with_regions

    @property
    def lengths(self) -> list[int]:
        """The characters of each caption: what the human says is not read."""
        return [len(record.turns[1][1]) for record in self.records]

    def __getitem__(self, index: int) -> CaptionSample:
        record = self.records[index]
        foils = record.extra.get("foils", [])
        if not isinstance(foils, list) or not all(isinstance(foil, str) for foil in foils):
            raise DataError(f"sample {record.id!r}: 'foils' should be a list of captions, not {foils!r}")
        if len(foils) < self.num_foils:
            raise DataError(f"sample {record.id!r} has {len(foils)} 'foils', but {self.num_foils} are asked for")
        foils = foils[: self.num_foils]
        texts = [self._tokens(text) for text in (record.turns[1][1], *foils)]
        picture = _picture(record)
        told = self._patch_texts(record, picture) if self.with_regions else []
        words = sorted({text for text in told if text is not None})
        return CaptionSample(
            self.processor.pixels(picture),
            texts[0],
            texts[1:],
            [self._tokens(text) for text in words],
            [IGNORE if text is None else words.index(text) for text in told],
        )

    def _tokens(self, text: str) -> list[int]:
        return tokenize_whole(self.processor, text)[: self.max_length]

    def _patch_texts(self, record: Record, picture: Image) -> list[str | None]:
        config = self.processor.config
        regions = read_regions(record.extra.get("regions"), f"sample {record.id!r}")
        return patch_texts(regions, picture.size, config.vision, config.resize_mode)


def tokenize_whole(processor: Processor, text: str) -> list[int]:
    """A text from its beginning to its end token."""
    tokens = processor.config.tokens
    return [token for token in (tokens.bos, *processor.tokenizer.tokenize(text), tokens.eos) if token is not None]


def _with_picture(record: Record) -> Conversation:
    """The record's conversation, its picture in front of the turn that showed it, where the original puts it."""
    conversation = record.conversation()
    if record.image is None:
        return conversation
    messages = list(conversation.messages)
    asked = messages[record.picture_turn]
    messages[record.picture_turn] = replace(asked, parts=(Picture(_picture(record)), *asked.parts))
    return replace(conversation, messages=tuple(messages))


def _inputs(processor: Processor, conversation: Conversation, record: Record, *, template: str) -> Inputs:
    try:
        return processor(conversation, template=template)
    except ValueError as error:
        raise DataError(f"sample {record.id!r}: {error}") from None


def _picture(record: Record) -> Image:
    if record.image is None:
        raise DataError(f"sample {record.id!r} has no picture, and this stage learns from pictures")
    try:
        return open_image(record.image)
    except ValueError as error:
        raise DataError(f"sample {record.id!r}: {error}") from None
