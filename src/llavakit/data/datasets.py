"""Records into samples: what is read from disk, rendered, tokenised and turned into pixels, one item at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL.Image import Image
from torch.utils.data import Dataset

from llavakit.data.collate import CaptionSample, Sample
from llavakit.data.records import DataError, Record
from llavakit.processing import Picture, Processor, open_image


class ConversationDataset(Dataset[Sample]):
    """Instruction samples: the assistant's words and end tokens are learned, cut at `max_length` tokens.

    Raises `DataError` naming the sample when no token of it would be learned.
    """

    def __init__(self, records: Sequence[Record], processor: Processor, *, template: str, max_length: int) -> None:
        self.records, self.processor = records, processor
        self.template, self.max_length = template, max_length

    def __len__(self) -> int:
        return len(self.records)

    @property
    def lengths(self) -> list[int]:
        """A cheap measure of each sample, for grouping: characters of text, and a picture's worth of them."""
        return [_num_characters(record) for record in self.records]

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        conversation = record.conversation()
        if record.image is not None:
            messages = list(conversation.messages)
            asked = messages[record.picture_turn]
            picture = Picture(_open(record))
            messages[record.picture_turn] = replace(asked, parts=(picture, *asked.parts))
            conversation = replace(conversation, messages=tuple(messages))
        inputs = self.processor(conversation, template=self.template)
        targets = inputs.targets[: self.max_length]
        if not any(targets):
            raise DataError(f"sample {record.id!r} has no word to learn within {self.max_length} tokens")
        if any(end > self.max_length for _, end in inputs.spans):
            raise DataError(f"sample {record.id!r}: its picture does not fit within {self.max_length} tokens")
        return Sample(inputs.tokens[: self.max_length], targets, inputs.pixels)


class TextDataset(Dataset[Sample]):
    """Text alone, every token learned: a conversation as the template renders it, or bare words if nobody asked."""

    def __init__(self, records: Sequence[Record], processor: Processor, *, template: str, max_length: int) -> None:
        self.records, self.processor = records, processor
        self.template, self.max_length = template, max_length

    def __len__(self) -> int:
        return len(self.records)

    @property
    def lengths(self) -> list[int]:
        return [_num_characters(record) for record in self.records]

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        if record.turns[0][1]:
            tokens = self.processor(record.conversation(), template=self.template).tokens
        else:
            tokens = tokenize_whole(self.processor, record.turns[1][1])
        tokens = tokens[: self.max_length]
        return Sample(tokens, [True] * len(tokens))


class CaptionDataset(Dataset[CaptionSample]):
    """Pictures with a caption, and with captions that are wrong in one detail (`foils` in the record)."""

    def __init__(self, records: Sequence[Record], processor: Processor, *, num_foils: int, max_length: int) -> None:
        self.records, self.processor = records, processor
        self.num_foils, self.max_length = num_foils, max_length

    def __len__(self) -> int:
        return len(self.records)

    @property
    def lengths(self) -> list[int]:
        return [len(record.turns[1][1]) for record in self.records]

    def __getitem__(self, index: int) -> CaptionSample:
        record = self.records[index]
        foils = record.extra.get("foils", [])[: self.num_foils]
        if len(foils) < self.num_foils:
            raise DataError(f"sample {record.id!r} has {len(foils)} 'foils', but {self.num_foils} are asked for")
        texts = [tokenize_whole(self.processor, text)[: self.max_length] for text in (record.turns[1][1], *foils)]
        pixels = self.processor.pixels(_open(record))
        return CaptionSample(pixels, texts[0], texts[1:])


def tokenize_whole(processor: Processor, text: str) -> list[int]:
    """A text from its beginning to its end token."""
    tokens = processor.config.tokens
    return [token for token in (tokens.bos, *processor.tokenizer.tokenize(text), tokens.eos) if token is not None]


def _open(record: Record) -> Image:
    try:
        return open_image(record.image)
    except ValueError as error:
        raise DataError(f"sample {record.id!r}: {error}") from None


def _num_characters(record: Record) -> int:
    return sum(len(words) for _, words in record.turns)
