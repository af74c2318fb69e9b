"""What of a new prompt has been computed before: plain code over integers and digests, no tensors."""

# cached   bos USER: [picture a] what is it? ASSISTANT: a cat
# wanted   bos USER: [picture a] what is it? ASSISTANT: a cat </s> USER: which colour? ASSISTANT:
#          [0 ----------------------------------- reusable) [------ still to be computed ------)

from __future__ import annotations

from collections.abc import Sequence

Key = int | bytes
"""What stands at one position: a token id, or the digest of the picture that a placeholder belongs to."""


def prefix_keys(tokens: Sequence[int], spans: Sequence[tuple[int, int]], digests: Sequence[bytes]) -> list[Key]:
    """The key of each position; `spans` are the half-open image spans, one digest each."""
    keys: list[Key] = list(tokens)
    for (start, end), digest in zip(spans, digests, strict=True):
        keys[start:end] = [digest] * (end - start)
    return keys


def num_reusable(cached: Sequence[Key], wanted: Sequence[Key], spans: Sequence[tuple[int, int]]) -> int:
    """Length of the common prefix, as far as it can be used to answer `wanted`.

    At least the last token is computed anew, since the first score is read from it, and a picture is reused whole or
    not at all: its features are written in one piece.
    """
    limit = min(len(cached), len(wanted) - 1)
    common = next((i for i in range(limit) if cached[i] != wanted[i]), limit)
    return next((start for start, end in spans if start < common < end), common)
