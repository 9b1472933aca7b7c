"""Writing a file so that it is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def written_whole(path: str | Path, *, unique: bool = False) -> Iterator[TextIO]:
    """A text file (UTF-8, no translation of line ends) that takes its name when it is complete.

    unique: several processes may write the same file at once.
    """
    path = Path(path)
    own = f".{os.getpid()}" if unique else ""
    partial = path.with_name(f"{path.name}{own}.partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
