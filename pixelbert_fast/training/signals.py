"""Ctrl-C, SIGTERM and SIGUSR1 as requests: the step is finished and the state saved before the run ends.

SIGTERM is what clusters send before they kill. SIGUSR1 is what Slurm is commonly told to send some time
before a job's limit or its pre-emption (`--signal=USR1@120`); unhandled it would kill.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from types import FrameType
from typing import Any

_STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


def exit_status(number: signal.Signals) -> int:
    """What a run ends with that was asked by this signal to stop and did: 130 for Ctrl-C, else 0."""
    return 128 + number if number == signal.SIGINT else 0


class StopSignals:
    """While entered, the first signal is noted in `received`; a second Ctrl-C quits at once.

    A SIGTERM after a SIGINT is no second Ctrl-C: DeepSpeed's launcher sends one to every process by itself.
    """

    def __init__(self, *, says: bool = True) -> None:
        self.received: signal.Signals | None = None
        self._says = says
        self._interrupted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        # Only the main thread may be told of signals.
        with contextlib.suppress(ValueError):
            for number in _STOPPING:
                self._before[number] = signal.signal(number, self._note)
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
