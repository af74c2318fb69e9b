"""A conversation to what the model reads: ids with a placeholder for every image feature, targets, and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from llavakit.anyres import num_image_tokens
from llavakit.config import LlavaConfig
from llavakit.processing.conversation import Conversation
from llavakit.processing.image import open_image, preprocess
from llavakit.processing.jinja import JinjaTemplate
from llavakit.processing.rendering import render
from llavakit.processing.segments import (
    AnswerForm,
    MarkerSegment,
    PictureSegment,
    Segment,
    SpecialSegment,
    TextSegment,
)
from llavakit.processing.templates import Template, find_template
from llavakit.processing.tiles import preprocess_tiles
from llavakit.processing.tokenizer import Tokenizer


@dataclass(frozen=True)
class Inputs:
    """One conversation, ready for the model.

    `targets[i]` is True where token i is to be learned. `spans` are the half-open ranges of each picture's
    placeholders, and `sizes` are (width, height) of each upright picture. `pixels` are all views of all pictures
    behind one another, or None without a picture. `answer` is how the template frames what is to come.
    """

    tokens: list[int]
    targets: list[bool]
    pixels: Float[Tensor, "views 3 size size"] | None
    spans: list[tuple[int, int]]
    sizes: list[tuple[int, int]]
    answer: AnswerForm = AnswerForm()


class Processor:
    """Text and pictures as one model was trained to take them; raises ValueError if tokenizer and model disagree."""

    def __init__(self, config: LlavaConfig, tokenizer: Tokenizer) -> None:
        if tokenizer.size > config.language.vocab_size:
            raise ValueError(
                f"The tokenizer has {tokenizer.size} tokens, but the model knows only {config.language.vocab_size}: "
                "they do not belong together."
            )
        self.config = config
        self.tokenizer = tokenizer

    def __call__(self, conversation: Conversation, *, template: str | JinjaTemplate | None = None) -> Inputs:
        """The whole way; `template` is that of the model unless one is given.

        Raises ValueError for an unknown one, and for a Jinja template that cannot be used.
        """
        if isinstance(template, JinjaTemplate):
            segments, answer = template.render(conversation, self.tokenizer)
        else:
            style = find_template(self.config.template if template is None else template)
            segments, answer = render(conversation, style), self._answer_form(style)
        pictures = [open_image(picture) for picture in conversation.pictures]
        inputs = self.tokenize_segments(segments, [picture.size for picture in pictures])
        views = [self.pixels(picture, among=len(pictures)) for picture in pictures]
        return replace(inputs, pixels=torch.cat(views) if views else None, answer=answer)

    def tokenize_segments(self, segments: Sequence[Segment], sizes: Sequence[tuple[int, int]]) -> Inputs:
        """Segments to ids, without pixels; `sizes` are (width, height) of the upright pictures."""
        config = self.config.for_pictures(len(sizes))
        tokens: list[int] = []
        targets: list[bool] = []
        spans: list[tuple[int, int]] = []
        before = "start"
        for segment in segments:
            ids, target = [], False
            match segment:
                case TextSegment(text, target):
                    ids = self.tokenizer.tokenize(text, after=before)
                    before = "text"
                case SpecialSegment(name, target):
                    id = getattr(config.tokens, name)
                    ids = [] if id is None else [id]  # not every model has a begin token
                    before = "special" if tokens or name != "bos" else "start"
                case MarkerSegment(spelling, target):
                    id = self.tokenizer.marker(spelling)
                    ids = self.tokenizer.tokenize(spelling, after=before) if id is None else [id]
                    before = "text" if id is None else "special"
                case PictureSegment(index):
                    length = num_image_tokens(*sizes[index], config)
                    start, end = config.tokens.image_start, config.tokens.image_end
                    ids = [token for token in (start, *[config.tokens.image] * length, end) if token is not None]
                    begin = len(tokens) + (start is not None)
                    spans.append((begin, begin + length))
                    # The original tokenizes what follows a picture as a text of its own.
                    before = "start" if end is None else "special"
            tokens += ids
            targets += [target] * len(ids)
        return Inputs(tokens, targets, None, spans, list(sizes))

    def _answer_form(self, style: Template) -> AnswerForm:
        # An end marker that is a token never becomes text, where a stop string could find it.
        ends = tuple(id for id in map(self.tokenizer.marker, style.stop) if id is not None)
        suffix = "" if style.stop else style.answer_suffix
        return AnswerForm(style.answer_prefix, suffix, ends, style.stop)

    def pixels(self, image: Image.Image, *, among: int = 1) -> Float[Tensor, "views 3 size size"]:
        """The views of one picture `among` so many of a conversation, of any mode and turned upright first."""
        image, config = open_image(image), self.config.for_pictures(among)
        if config.resize_mode == "anyres":
            return torch.from_numpy(preprocess_tiles(image, config.vision, config.tiling))
        return torch.from_numpy(preprocess(image, config.vision, config.resize_mode))[None]
