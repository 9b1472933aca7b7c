"""Tables of captions: .csv, .tsv and .jsonl files read a row at a time, each row with its place."""

import csv
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pixelbert_fast.data.json_stream import MAX_ELEMENT, packed, value_of
from pixelbert_fast.errors import UserError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class CaptionTable:
    """The rows of a file: of .csv and .tsv below a line of column names, of .jsonl an object a line.

    A row is a dict by the names of the columns; where a .csv row has more fields than there are columns, the
    rest is under None, as csv.DictReader has it. Raises UserError for another kind of file.
    """

    def __init__(self, path: Path):
        self.path = path
        suffix = path.suffix.lower()
        if suffix not in (*_DELIMITERS, ".jsonl"):
            raise UserError(f"{path} is none of .csv, .tsv, .jsonl: give captions in one of these")
        self._delimiter = _DELIMITERS.get(suffix)

    @cached_property
    def names(self) -> list[str]:
        """The names of the columns; of JSONL, the members of the first line."""
        for _, _, row in self.rows():
            return [name for name in row if name is not None]
        raise UserError(f"{self.path} has no row: give a file with captions")

    def rows(self) -> Iterator[tuple[int, int, dict]]:
        """Number (from 1), place and columns of each row. Raises UserError for a row that cannot be read."""
        with open(self.path, "rb") as file:
            if file.read(3) != b"\xef\xbb\xbf":
                file.seek(0)
            yield from self._csv(file) if self._delimiter else self._jsonl(file)

    def row(self, content: bytes) -> dict:
        """The columns of a row's bytes. Raises ValueError where it has none."""
        if self._delimiter is None:
            row = value_of(content)
        else:
            # Cut as the file was: str.splitlines would cut at other signs too.
            lines = (line + "\n" for line in content.decode().split("\n"))
            row = self._columns(next(self._reader(lines), []), self.names)
        if not isinstance(row, dict):
            raise ValueError("not an object")
        return row

    def _jsonl(self, file: Any) -> Iterator[tuple[int, int, dict]]:
        number = 0
        for start, line in self._lines(file):
            if not line.strip():
                continue
            number += 1
            try:
                yield number, packed(start, len(line)), self.row(line)
            except ValueError:
                raise UserError(f"{self.path}: row {number:,} is not a JSON object in UTF-8") from None

    def _csv(self, file: Any) -> Iterator[tuple[int, int, dict]]:
        end = file.tell()

        def decoded() -> Iterator[str]:
            nonlocal end
            for start, line in self._lines(file):
                end = start + len(line)
                yield line.decode()

        reader = self._reader(decoded())
        names: list[str] | None = None
        number = 0
        while True:
            start = end
            try:
                fields = next(reader, None)
            except UnicodeDecodeError:
                raise UserError(f"{self.path}: line {reader.line_num + 1:,} is not in UTF-8") from None
            except csv.Error as error:
                raise UserError(
                    f"{self.path}: line {reader.line_num:,} cannot be read ({error}): mend it, or give the "
                    "captions as .jsonl"
                ) from None
            if fields is None:
                return
            if not any(fields):
                continue
            if names is None:
                names = [field.strip() for field in fields]
                if twice := [name for name in names if names.count(name) > 1]:
                    raise UserError(f"{self.path} has two columns {twice[0]!r}: give each its own name")
                continue
            number += 1
            yield number, packed(start, end - start), self._columns(fields, names)

    def _reader(self, lines: Iterator[str]) -> Any:
        # Strict: an open quote would swallow the rows below it.
        return csv.reader(lines, delimiter=self._delimiter, strict=True)

    @staticmethod
    def _columns(fields: list[str], names: list[str]) -> dict:
        row: dict = dict(zip(names, fields, strict=False))
        if len(fields) > len(names):
            row[None] = fields[len(names) :]
        return row

    def _lines(self, file: Any) -> Iterator[tuple[int, bytes]]:
        start = file.tell()
        while line := file.readline(MAX_ELEMENT):
            if len(line) == MAX_ELEMENT:
                raise UserError(
                    f"{self.path} has a line of more than {MAX_ELEMENT >> 20} MiB at byte {start:,}"
                )
            yield start, line
            start += len(line)
