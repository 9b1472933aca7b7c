"""The encoded images of a split, read one at a time from its Arrow files.

By `pread`, not through the memory map: pages of a map that have been read count as the process's memory until
the set's size is reached, a page fault on a slow disk stops all Python threads, and a disk that fails ends
the process by a signal, not by an error.
"""

from __future__ import annotations

import os
import weakref
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixelbert_fast.errors import UserError

_MAPS = Path("/proc/self/maps")
_OFFSETS = {"binary": np.int32, "large_binary": np.int64, "string": np.int32, "large_string": np.int64}


class _Chunk(NamedTuple):
    """A part of the column. file: open for reading, or None where it is no file; position: of its values.
    ends: where each value begins, and at last where the last one ends, counted from there."""

    array: object
    ends: np.ndarray
    file: int | None
    position: int


class StoredBytes:
    """The values of one binary column by row, as bytes; None for a value that is not there.

    split: a `datasets.Dataset`, as loaded, selected from or concatenated; in memory or in files. May be read
    by several threads at once. Raises UserError for a file that cannot be read.
    """

    def __init__(self, split, column: str = "image"):
        table, indices = split.data, split._indices
        self._rows = None if indices is None else indices.column(0).to_numpy()
        files = _Files()
        self._chunks = [_located(chunk, files) for chunk in table.column(column).chunks if len(chunk)]
        self._starts = np.cumsum([0, *(len(chunk.array) for chunk in self._chunks)]).tolist()
        self._length = len(split)
        weakref.finalize(self, files.close)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, row: int) -> bytes | None:
        if not 0 <= row < self._length:
            raise IndexError(f"row {row} of {self._length}")
        row = row if self._rows is None else int(self._rows[row])
        number = bisect_right(self._starts, row) - 1
        array, ends, file, position = self._chunks[number]
        place = row - self._starts[number]
        if file is None:
            return array[place].as_py()
        begin, end = int(ends[place]), int(ends[place + 1])
        return _read(file, end - begin, position + begin)


def _read(file: int, size: int, position: int) -> bytes:
    try:
        data = os.pread(file, size, position)
        while len(data) < size:
            more = os.pread(file, size - len(data), position + len(data))
            if not more:
                raise OSError("the file has become shorter")
            data += more
    except OSError as error:
        raise UserError(
            f"the data set cannot be read ({error.strerror or error}): is its disk there?"
        ) from error
    return data


class _Files:
    """The memory-mapped files of this process, and those of them opened for reading."""

    def __init__(self):
        self._maps, self._open = [], {}
        try:
            lines = _MAPS.read_text().splitlines()
        except OSError:  # not Linux: everything is read through the map
            return
        for line in lines:
            addresses, _, offset, _, _, *path = line.split(maxsplit=5)
            if path and path[0].startswith("/"):
                begin, end = (int(address, 16) for address in addresses.split("-"))
                self._maps.append((begin, end, int(offset, 16), path[0]))

    def at(self, address: int, size: int) -> tuple[int, int] | None:
        """(open file, place in it) of what is mapped there, or None where it is no file that can be read."""
        number = bisect_right(self._maps, (address, float("inf"))) - 1
        if number < 0:
            return None
        begin, end, offset, path = self._maps[number]
        if address + size > end:
            return None
        try:
            if path not in self._open:
                self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # deleted since it was mapped
            return None
        return self._open[path], address - begin + offset

    def close(self) -> None:
        for file in self._open.values():
            os.close(file)
        self._open.clear()


def _located(array, files: _Files) -> _Chunk:
    width = _OFFSETS.get(str(array.type))
    if width is None or array.null_count:
        return _Chunk(array, np.zeros(0), None, 0)
    _, ends, values = array.buffers()
    place = files.at(values.address, values.size) if values is not None else None
    ends_place = files.at(ends.address, ends.size)
    if place is None or ends_place is None:
        return _Chunk(array, np.zeros(0), None, 0)
    size, (file, position) = np.dtype(width).itemsize, ends_place
    ends = _read(file, size * (len(array) + 1), position + size * array.offset)
    return _Chunk(array, np.frombuffer(ends, width), *place)
