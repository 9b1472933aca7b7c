"""JSON records, a line each, that neither a kill nor a full disk takes away, nor makes end a run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class RecordFile:
    """Appends records to a file, each on the disk's way when `write` returns.

    A record that cannot be written is lost, and told on stderr when it is the first of several.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Without a buffer: what one write could not take is not tried again in the middle of another record.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        self._failing = False

    def write(self, record: Mapping[str, Any]) -> None:
        """Write one record; ValueError where a number in it is not finite."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        if self._failing:
            line = b"\n" + line  # away from what the last try may have left
        try:
            if self._file.write(line) == len(line):
                self._failing = False
                return
            reason = "there is no space left"
        except OSError as error:
            reason = error.strerror or type(error).__name__
        if not self._failing:
            print(f"\nwarning: records of {self._path} are lost: {reason}", file=sys.stderr, flush=True)
        self._failing = True

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def cut_records(path: Path, step: int) -> None:
    """Drop the records of later steps than `step`, and what is no whole record; the file is replaced whole.

    Raises:
        OSError: it cannot be read or replaced; it is then as it was.
    """
    if not path.is_file():
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a process that is killed, or a disk that is full, leaves a part
        if record.get("step", 0) <= step:
            kept.append(line + b"\n")
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(b"".join(kept))
    os.replace(partial, path)
