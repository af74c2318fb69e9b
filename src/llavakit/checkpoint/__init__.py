"""Between disk and model; the one room that knows file formats, ours and foreign. No pickle is ever opened here."""

from __future__ import annotations


class CheckpointError(ValueError):
    """Files that cannot be read as, or written to, a checkpoint; the message names the file and what is wrong."""
