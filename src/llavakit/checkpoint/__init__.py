"""Between disk and model; the one room that knows file formats, ours and foreign.

Pickles are opened only in a process of their own, on the user's word.
"""

from __future__ import annotations

from llavakit.config import one_line


class CheckpointError(ValueError):
    """Files that cannot be read as, or written to, a checkpoint; the message names the file and what is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))
