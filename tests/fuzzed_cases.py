"""What every target of `fuzz_data` shares: what a target is, and which outcomes are right."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pixelbert_fast.errors import UserError

LONGEST_SENTENCE = 1500
"""Of an error: far above any that quotes what was given shortened, which may have megabytes."""
SECONDS = 20
"""That a case may take. The slowest take one."""
WORKED = "worked"


@dataclass(frozen=True)
class Target:
    """Something that reads what users give.

    `cases`: draws what is given. `judge`: gives it, in a folder of the case's own, and returns `WORKED`, or
    the name of the error that came; raises AssertionError where the outcome is wrong.
    """

    name: str
    what: str
    cases: st.SearchStrategy
    judge: Callable[[Any, Path], str]


class Hung(BaseException):
    """No Exception: what is judged must not take it for an error of its input."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raises AssertionError inside where it takes longer; in the main thread."""

    def stop(number: int, frame: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Hung:
        raise AssertionError(f"still at work after {seconds} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def sentence(error: UserError) -> str:
    """The error's name, when its message is one line that a user can read."""
    message = str(error)
    assert message and not set("\n\r\0") & set(message), repr(message[:LONGEST_SENTENCE])
    assert len(message) <= LONGEST_SENTENCE, f"{len(message)} letters: {message[:LONGEST_SENTENCE]}"
    message.encode("utf-8", "surrogateescape")  # stderr takes no other surrogates
    return type(error).__name__


def judged(target: Target, case: Any, folder: Path) -> str:
    """What came of a case: "worked", or the user error's name. Raises what is neither."""
    with at_most(SECONDS):
        return target.judge(case, folder)
