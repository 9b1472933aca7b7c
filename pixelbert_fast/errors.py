"""What ends a command with a sentence, and the search for the name they probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST = 1000
"""Letters of a message, which may quote what a user gave: of a longer one the middle is left out."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class _Told(Exception):
    """Its message is one line of at most LONGEST letters, none of which moves a terminal's cursor."""

    def __init__(self, message: str):
        super().__init__(as_line(message))


class UserError(_Told):
    """A mistake of the user's: one sentence saying what is wrong, where, and what to do. Exit status 2."""


class RunError(_Told):
    """Something failed that was asked for correctly: one sentence saying what. Exit status 1."""


class Stopped(Exception):
    """Ctrl-C; the message says how to go on. Exit status 130."""


def as_line(message: str) -> str:
    """`message` as one short line: line ends become spaces, other control characters are written out."""
    line = " ".join(part.strip() for part in re.split(r"[\r\n]+", message) if part.strip())
    line = _CONTROL.sub(lambda found: repr(found[0])[1:-1], line)
    end = LONGEST // 4  # says what to do
    return line if len(line) <= LONGEST else f"{line[: LONGEST - end - 5]} ... {line[-end:]}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the member of `known` most like `word`, or None where nothing resembles it.

    Case and the difference between `-` and `_` do not count.
    """
    by_plain_form: dict[str, str] = {}
    for name in known:
        by_plain_form.setdefault(_plain(name), name)
    matches = difflib.get_close_matches(_plain(word), by_plain_form, n=1, cutoff=0.6)
    return by_plain_form[matches[0]] if matches else None


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")
