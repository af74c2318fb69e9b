"""What a terminal writes when a file is dropped on it, back into a path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit


def dropped_path(line: str) -> Path | None:
    """The file that a whole line names, or None if it names none: quoted, with escaped blanks, or as a file:// URL."""
    return next((Path(spelling) for spelling in _spellings(line.strip()) if os.path.isfile(spelling)), None)


def _spellings(line: str) -> Iterator[str]:
    yield os.path.expanduser(line)
    if len(line) > 1 and line[0] == line[-1] and line[0] in "'\"":
        yield os.path.expanduser(line[1:-1].replace("'\\''", "'"))  # how a shell quotes a quote
    if line.startswith("file://"):
        yield unquote(urlsplit(line).path)
    yield os.path.expanduser(re.sub(r"\\(.)", r"\1", line))
