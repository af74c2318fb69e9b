"""Text and pictures to tokens and pixels, and tokens back to text."""

from llavakit.processing.conversation import Conversation, Message, Part, Picture, Text, assistant, user
from llavakit.processing.image import ImageError, open_image, preprocess
from llavakit.processing.jinja import ChatTemplateError, JinjaTemplate
from llavakit.processing.processor import Inputs, Processor
from llavakit.processing.rendering import render
from llavakit.processing.segments import MarkerSegment, PictureSegment, Segment, SpecialSegment, TextSegment
from llavakit.processing.templates import TEMPLATES, Template, find_template
from llavakit.processing.tiles import preprocess_tiles
from llavakit.processing.tokenizer import TextStream, Tokenizer, TokenizerError, train_tokenizer

__all__ = [
    "TEMPLATES",
    "ChatTemplateError",
    "Conversation",
    "ImageError",
    "Inputs",
    "JinjaTemplate",
    "MarkerSegment",
    "Message",
    "Part",
    "Picture",
    "PictureSegment",
    "Processor",
    "Segment",
    "SpecialSegment",
    "Template",
    "Text",
    "TextSegment",
    "TextStream",
    "Tokenizer",
    "TokenizerError",
    "assistant",
    "find_template",
    "open_image",
    "preprocess",
    "preprocess_tiles",
    "render",
    "train_tokenizer",
    "user",
]
