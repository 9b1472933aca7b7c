"""Large JSON files read one element at a time, each with its place, so that it can be read again alone."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pixelbert_fast.errors import UserError

CHUNK = 1 << 20
_LENGTH_BITS = 26
MAX_ELEMENT = 1 << _LENGTH_BITS
"""Longest element, in bytes: far above any in the known files, and a bound on memory for a wrong file."""

_SPACE = re.compile(r"[ \t\n\r]*")


class Element(NamedTuple):
    """One element of an array: its value, and the bytes `start` to `start + length` of the file."""

    value: Any
    start: int
    length: int

    @property
    def place(self) -> int:
        """Where it is, in one number of 64 bits (see `packed`)."""
        return packed(self.start, self.length)


def packed(start: int, length: int) -> int:
    """A place in a file, below 256 GiB and of less than MAX_ELEMENT bytes, as one number of 64 bits."""
    return start << _LENGTH_BITS | length


def bytes_at(path: Path | str, place: int) -> bytes:
    """The bytes of the file at a packed place. Raises OSError."""
    with open(path, "rb") as file:
        file.seek(place >> _LENGTH_BITS)
        return file.read(place & (1 << _LENGTH_BITS) - 1)


class JsonArray:
    """The elements of an array in a JSON file: the file's top level, or the member `key` of its object.

    Iterating holds one element at a time, and a second iteration reads the file again. After one, `beside`
    holds the other members of the object that are neither arrays nor objects.

    Raises UserError, while iterating, for a file that cannot be read, is empty or broken, or has no such
    array.
    """

    def __init__(self, path: Path | str, key: str | None = None):
        self.path, self.key = Path(path), key
        self.beside: dict[str, Any] = {}

    def __iter__(self) -> Iterator[Element]:
        try:
            with open(self.path, "rb") as file:
                yield from self._top(_Reader(file, self.path))
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def _top(self, reader: "_Reader") -> Iterator[Element]:
        first = reader.peek()
        if first == "":
            raise UserError(f"{self.path} is empty: give the whole annotation file")
        if self.key is None:
            if first != "[":
                raise UserError(f"{self.path} is not the annotation file expected: it holds no list")
            yield from reader.array()
        elif first == "{":
            yield from self._members(reader)
        else:
            raise self._without_key()
        if reader.peek() != "":
            raise reader.broken()

    def _members(self, reader: "_Reader") -> Iterator[Element]:
        found = False
        for name in reader.members():
            opening = reader.peek()
            if name == self.key:
                if opening != "[" or found:
                    raise self._without_key()
                found = True
                yield from reader.array()
            elif opening == "[":
                for _ in reader.array():
                    pass
            else:
                value = reader.value().value
                if not isinstance(value, dict):
                    self.beside[name] = value
        if not found:
            raise self._without_key()

    def _without_key(self) -> UserError:
        return UserError(f"{self.path} is not the annotation file expected: it has no list {self.key!r}")


def read_element(file: BinaryIO, start: int, length: int) -> Any:
    """The value of the element at these bytes. Raises ValueError where the file is not as it was."""
    file.seek(start)
    return value_of(file.read(length))


def value_of(content: bytes) -> Any:
    """The value of one element's bytes. Raises ValueError where they are not as they were."""
    try:
        return json.loads(content.decode())
    except RecursionError as error:  # the deeper the caller, the sooner
        raise ValueError("lists in lists, too deep to be read") from error


class _Reader:
    """A window on the file, decoded as Latin-1 so that a character is a byte: JSON's own signs are ASCII."""

    def __init__(self, file: BinaryIO, path: Path):
        self._file, self._path = file, path
        self._decode = json.JSONDecoder().raw_decode
        self._text = file.read(CHUNK).removeprefix(codecs.BOM_UTF8).decode("latin-1")
        self._offset = file.tell() - len(self._text)
        self._at, self._ended = 0, False

    def broken(self) -> UserError:
        return UserError(
            f"{self._path} is not valid JSON at byte {self._offset + self._at:,}: "
            "it is another kind of file, or was not downloaded whole"
        )

    def peek(self) -> str:
        """The next character that is not space, empty at the end of the file."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def array(self) -> Iterator[Element]:
        self._take("[")
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            self.peek()
            yield self.value()
            if self.peek() == "]":
                self._at += 1
                return
            self._take(",")

    def members(self) -> Iterator[str]:
        """The name of each member of an object; the caller takes its value before going on."""
        self._take("{")
        if self.peek() == "}":
            self._at += 1
            return
        while True:
            if self.peek() != '"':
                raise self.broken()
            name = self.value().value
            self._take(":")
            yield name
            if self.peek() == "}":
                self._at += 1
                return
            self._take(",")

    def value(self) -> Element:
        """The value that begins here."""
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except (ValueError, RecursionError):
                end = len(self._text)
                value = None
                if self._ended:
                    raise self.broken() from None
            # What ends with the window may go on behind it, as a number does.
            if end < len(self._text) or self._ended:
                break
            if len(self._text) - self._at >= MAX_ELEMENT:
                raise self.broken()
            self._more()
        if end - self._at >= MAX_ELEMENT:
            raise self.broken()
        text = self._text[self._at : end]
        if not text.isascii():
            try:
                value = value_of(text.encode("latin-1"))
            except ValueError:
                raise self.broken() from None
        element = Element(value, self._offset + self._at, end - self._at)
        self._at = end
        return element

    def _take(self, sign: str) -> None:
        if self.peek() != sign:
            raise self.broken()
        self._at += 1

    def _more(self) -> bool:
        """Let go of what was taken and read on; the window doubles while an element does not end in it."""
        kept = self._text[self._at :]
        new = self._file.read(max(CHUNK, len(kept)))
        self._ended = not new
        self._offset += self._at
        self._text, self._at = kept + new.decode("latin-1"), 0
        return bool(new)
