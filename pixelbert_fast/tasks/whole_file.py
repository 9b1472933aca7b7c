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

    Through a symbolic link it is the file meant that is replaced. What is there and no file, as /dev/stdout
    or a pipe, is written into and stays.

    unique: several processes may write the same file at once.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "w", encoding="utf-8", newline="") as file:
            yield file
        return
    own = f".{os.getpid()}" if unique else ""
    partial = path.with_name(f"{path.name}{own}.partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
