"""Room on a disk: asked for before the work, taken at once where the disk can, told where it runs out."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pixelbert_fast.errors import UserError

LEFT_FREE = 1 << 28
"""Bytes of a disk that are never taken."""
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def free(folder: Path) -> int:
    """Bytes that may be taken of the disk of a folder."""
    return max(shutil.disk_usage(folder).free - LEFT_FREE, 0)


def reserve(path: Path, size: int, *, again: bool = False) -> None:
    """A file of this size, zeros where it is new; a process that comes second changes nothing.

    again: also where it has that size, since it may have holes.

    Raises OSError where the disk, or what a user may take of it, is full.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if again or os.fstat(handle).st_size < size:
            try:
                os.posix_fallocate(handle, 0, size)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise
                os.truncate(handle, max(size, os.fstat(handle).st_size))  # not every filesystem reserves
    finally:
        os.close(handle)


@contextlib.contextmanager
def told_when_full(folder: Path, after: str) -> Iterator[None]:
    """Raises UserError for an OSError that says that the disk is full; `after`: what to do then."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise UserError(f"{folder}: {error.strerror}; {after}") from error


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
