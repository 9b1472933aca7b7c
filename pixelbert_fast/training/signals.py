"""Ctrl-C and SIGTERM as requests: the step is finished and the state saved before the run ends."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is noted in `received`; a second Ctrl-C quits at once.

    A SIGTERM after a SIGINT is no second Ctrl-C: DeepSpeed's launcher sends one to every process by itself.
    """

    def __init__(self, *, says: bool = True) -> None:
        self.received: signal.Signals | None = None
        self._says = says
        self._interrupted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:
            pass  # not the main thread, which alone may be told of signals
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted |= number == signal.SIGINT
        if self.received is None:
            self.received = signal.Signals(number)
            if self._says:
                print(
                    "\nstopping: this step is finished and the state saved; Ctrl-C again quits at once",
                    file=sys.stderr,
                    flush=True,
                )
