"""What ends a command with a sentence, and the search for the name they probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's: one sentence saying what is wrong, where, and what to do. Exit status 2."""


class RunError(Exception):
    """Something failed that was asked for correctly: one sentence saying what. Exit status 1."""


class Stopped(Exception):
    """Ctrl-C; the message says how to go on. Exit status 130."""


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
