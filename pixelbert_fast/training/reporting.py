"""The page about a run: who is above training writes it, at the moments that training names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

from pixelbert_fast.training.ranks import Ranks


class Reporter(Protocol):
    """What writes the report of the run in a folder, finished or not."""

    def __call__(self, folder: Path, *, examples: bool) -> None:
        """Write it; `examples`: with what the trained model says, which takes as long as a small evaluation.

        May raise anything.
        """


def report(reporter: Reporter | None, folder: Path, ranks: Ranks, *, examples: bool) -> None:
    """Let the first process's `reporter` write; what goes wrong is one sentence on stderr, never an error.

    Ctrl-C ends the report, not the run, which is saved by then.
    """
    if reporter is None or not ranks.first:
        return
    try:
        reporter(folder, examples=examples)
    except KeyboardInterrupt:
        print(f"the report was stopped; `pixelbert report {folder}` writes it", file=sys.stderr)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        again = f"`pixelbert report {folder}` tries again"
        print(f"warning: the report of {folder} was not written: {reason}; {again}", file=sys.stderr)
