"""The words <im_start> and <im_end> of the first generation, where a stage 1 folder brings them for a base without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llavakit.checkpoint import CheckpointError
from llavakit.checkpoint.reader import StoredTensor, Tensors

EMBEDDINGS = "language.embed_tokens.weight"
_HEAD = "language.lm_head.weight"
_NUM_OWN = 2  # and before them perhaps <im_patch>, which no prompt holds


def add_picture_words(base: Tensors, words: StoredTensor, vocab_size: Any, source: str) -> Tensors:
    """The base with `vocab_size` words, the last two of which are those of `words`.

    `words` are the two vectors, or a matrix of all words of which the last two count. As the original does it, any
    other new row, and every new one of the output matrix, is the mean of the base's. Raises `CheckpointError` where
    the numbers of words do not go together. (Upstream: `initialize_vision_tokenizer`.)
    """
    num_base = base[EMBEDDINGS].shape[0]
    sizes = (num_base + _NUM_OWN, num_base + _NUM_OWN + 1)
    if vocab_size not in sizes or words.shape[0] not in (_NUM_OWN, vocab_size):
        raise CheckpointError(
            f"{source} brings {words.shape[0]} words for pictures and has a vocabulary of {vocab_size}; over a base of "
            f"{num_base} words it should be {sizes[0]} or {sizes[1]}, and bring two or all of them"
        )
    num_new = vocab_size - num_base
    longer = {EMBEDDINGS: _longer(base[EMBEDDINGS], num_new, last=words)}
    if _HEAD in base:
        longer[_HEAD] = _longer(base[_HEAD], num_new, last=None)
    return base | longer


def _longer(tensor: StoredTensor, num_new: int, *, last: StoredTensor | None) -> StoredTensor:
    """A matrix with new rows: all the mean of the others but for the last two, where they are given."""

    def read() -> Tensor:
        rows = tensor.read()
        new = rows.float().mean(0, keepdim=True).to(rows.dtype).repeat(num_new, 1)
        if last is not None:
            new[-_NUM_OWN:] = last.read()[-_NUM_OWN:].to(rows.dtype)
        return torch.cat((rows, new))

    return StoredTensor(tensor.name, (tensor.shape[0] + num_new, *tensor.shape[1:]), tensor.dtype, read)
