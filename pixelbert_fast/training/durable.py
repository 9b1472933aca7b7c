"""Files and folders that are whole or not there, on the disk and not only on their way to it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# Large enough that a file is read and hashed at the speed of the hash.
_PIECE = 1 << 22
_NOT_OFFERED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Content:
    """What tells one file's content from another's: its bytes counted, and their SHA-256 in hex."""

    size: int
    sha256: str


class _Hashing:
    """A file that hashes what is written to it, in order."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self._size += len(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()

    def content(self) -> Content:
        return Content(self._size, self._hash.hexdigest())


def save_tensors(value: Any, path: Path) -> Content:
    """`torch.save` to the disk, read back from there and compared; returns what the file holds.

    Raises:
        OSError: it cannot be written, or reads back otherwise than it was written.
    """
    with open(path, "wb") as file:
        hashing = _Hashing(file)
        try:
            torch.save(value, hashing)
        except RuntimeError:
            if hashing.error is None:
                raise
            raise hashing.error from None  # torch's own words for it are of its positions in the file
        _to_disk(file)
        written = hashing.content()
    _compare(path, written)
    return written


def write_bytes(path: Path, data: bytes) -> Content:
    """Write a file to the disk, and compare it as `save_tensors` does; OSError where that fails."""
    with open(path, "wb") as file:
        file.write(data)
        _to_disk(file)
    written = Content(len(data), hashlib.sha256(data).hexdigest())
    _compare(path, written)
    return written


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that it is whole or not there."""
    partial = path.with_name(f"{path.name}.partial")
    write_bytes(partial, (json.dumps(value, indent=2) + "\n").encode())
    os.replace(partial, path)
    sync_folder(path.parent)


def content_of(path: Path) -> Content:
    """Read a file for its size and hash; OSError where that fails."""
    found = hashlib.sha256()
    size = 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            found.update(piece)
            size += len(piece)
    return Content(size, found.hexdigest())


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk, where its filesystem lets one ask for that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def discard(folder: Path) -> None:
    """Remove a folder that may be read: first its name, so that half of it is never taken for it."""
    removed = folder.with_name(f"{folder.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.replace(folder, removed)
    shutil.rmtree(removed, ignore_errors=True)


def replace_folder(folder: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a new folder and put it in the place of `folder`, which is there or not.

    Whatever ends the process, `folder` is the old one or the new one, both whole. Where the system cannot
    exchange two names, and is stopped just between its two steps, `settle` puts the old one back.

    Raises whatever `write` does, and OSError; `folder` is then as it was.
    """
    settle(folder)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write(partial)
        for path in (partial, *partial.rglob("*")):
            sync_folder(path) if path.is_dir() else _sync_file(path)
        if not folder.exists():
            os.replace(partial, folder)
        elif not _exchange(partial, folder):
            os.replace(folder, folder.with_name(f"{folder.name}.removed"))
            os.replace(partial, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        settle(folder)


def settle(folder: Path) -> None:
    """Undo or finish what a stopped `replace_folder` or `discard` left of `folder`; OSError if it cannot."""
    removed = folder.with_name(f"{folder.name}.removed")
    if removed.is_dir() and not folder.exists():
        os.replace(removed, folder)
    shutil.rmtree(removed, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where this system or filesystem does not offer that."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    if call(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(exchange)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_OFFERED:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
    if hasattr(os, "posix_fadvise"):
        # Out of memory's copy, so that reading it back asks the disk.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _compare(path: Path, written: Content) -> None:
    if content_of(path) != written:
        raise OSError(errno.EIO, f"{path.name} reads back otherwise than it was written; check the disk")
