"""Who of a run's processes is still there, so that when one dies the others can say which, and end.

A process that dies takes the connections of its collectives along: the others fail, each with an error that
names an address and nothing else. So every process counts, in a thread, in the store that the run was joined
through; whoever has stopped counting and has not said why is dead. Where a machine is cut off no connection
breaks, and the collectives would wait for hours: then the thread ends its process.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pixelbert_fast.errors import RunError
from pixelbert_fast.training.ranks import PeerError, Ranks, exit_status

# Marks the last word of a process that ended, in place of its count; its status follows, and its error's
# hash.
_LEFT = "left"
_BECAUSE_OF_ANOTHER = "another"


class RollCall:
    """Counts for this process and watches the counts of the others.

    Args:
        store: reachable by all, this process's own connection (`multi_get`, `set`).
        rank, world: this process and how many there are.
        place: where this process is, as a person knows it.
        interval: seconds between two counts.
        silence: seconds after which a process that counts no more is given up, and this one ends.
        end: called with the sentence in that case, from the thread; ends the process.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        world: int,
        place: str,
        *,
        interval: float = 2.0,
        silence: float = 300.0,
        end: Callable[[str], None] | None = None,
    ) -> None:
        self._store = store
        self._rank, self._world = rank, world
        self._interval, self._silence = interval, silence
        self._end = end or _end_process
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._words = [""] * world
        self._heard = [time.monotonic()] * world
        self._store_gone = False
        self._dead: list[int] = []
        self._count = 0
        store.set(f"place/{rank}", place)
        store.set(f"word/{rank}", "0")
        # Waits for the slowest to start.
        self._places = [_text(value) for value in store.multi_get([f"place/{n}" for n in range(world)])]
        self._look()
        self._thread = threading.Thread(target=self._watch, name="roll-call", daemon=True)
        self._thread.start()

    def explained(self, error: BaseException) -> BaseException:
        """What to raise in the place of `error`, with which this process ends; the others learn of it.

        An error of this process's own stays as it is, unless one before it ends with the same: then that one
        tells it, and here it is a `PeerError`. For a broken connection: a `RunError` that names the dead in
        the first process that is left, `PeerError` in the others, and where the other has said why.
        """
        if is_broken_connection(error):
            # A launcher that has seen the death stops the others: not before they have said so.
            with contextlib.suppress(ValueError):  # only the main thread may
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._dead = self.dead()
            error = self._reasons(self._dead)
            status = exit_status(error)
            self._leave(_BECAUSE_OF_ANOTHER)
        else:
            status = getattr(error, "status", exit_status(error))
            text = hashlib.sha256(f"{type(error).__name__} {error}".encode()).hexdigest()[:16]
            # Before this one's last word, for which the first process, and with it the store, waits.
            told = not isinstance(error, PeerError) and self._told_before(text)
            self._leave(f"{status} {text}")
            error = PeerError(status) if told else error
        # When everything has been said and closed.
        atexit.register(self._linger)
        _end_later(status)
        return error

    def _told_before(self, text: str) -> bool:
        """Whether a process before this one ends with the same error, which all meet at about one time."""
        until = time.monotonic() + 2 * self._interval
        while self._rank and not self._store_gone and time.monotonic() < until:
            with self._lock:
                self._read()
                words = self._words[: self._rank]
            if any(word.startswith(_LEFT) and word.endswith(f" {text}") for word in words):
                return True
            time.sleep(0.1)
        return False

    def dead(self) -> list[int]:
        """The processes that count no more and have not said why; takes a few intervals."""
        # Its last words may not have been read yet.
        self._look()
        with self._lock:
            before = list(self._words)
            gone = self._store_gone
        if not gone:
            time.sleep(4 * self._interval)
            self._look()
        with self._lock:
            if self._store_gone:
                # It lives in the first process (or in the launcher), which has left if it said so.
                return [] if self._words[0].startswith(_LEFT) else [0]
            others = (rank for rank in range(self._world) if rank != self._rank)
            return [r for r in others if self._words[r] == before[r] and not before[r].startswith(_LEFT)]

    def _linger(self) -> None:
        """Let the others read why this process ends before it does: with the first the store is gone."""
        until = time.monotonic() + 5 * self._interval
        while self._rank == 0 and time.monotonic() < until:
            with self._lock:
                self._read()
                waiting = [
                    rank
                    for rank in range(1, self._world)
                    if rank not in self._dead and not self._words[rank].startswith(_LEFT)
                ]
            if self._store_gone or not waiting:
                return
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop counting; the run is over for this process, and all is well."""
        self._leave("0")

    def _reasons(self, dead: list[int]) -> BaseException:
        if dead:
            left = [rank for rank in range(self._world) if rank not in dead]
            return RunError(self._sentence(dead)) if self._rank == min(left) else PeerError(1)
        with self._lock:
            said = [word.split()[1] for word in self._words if word.startswith(_LEFT)]
        statuses = [int(word) for word in said if word.isdigit()]
        if statuses:
            return PeerError(max(statuses))
        if said:
            return PeerError(1)
        return RunError(
            "the connection to another process broke and all of them are still there; look at the network,"
            " then start the same command again: it goes on from the last saved state"
        )

    def _sentence(self, dead: list[int]) -> str:
        names = ", ".join(f"{rank} ({self._places[rank]})" for rank in dead)
        one = len(dead) == 1
        return (
            f"{'process' if one else 'processes'} {names} of {self._world} died without a word (killed, out"
            " of memory, or the machine is gone) and the others end; the same command goes on from the last"
            " saved state"
        )

    def _watch(self) -> None:
        woken = time.monotonic()
        while not self._done.wait(self._interval):
            before, woken = woken, time.monotonic()
            self._look()
            with self._lock:
                if self._store_gone:
                    return
                if woken - before > 10 * self._interval:
                    # This process was stopped itself, and with it perhaps all: they get their time anew.
                    self._heard = [woken] * self._world
                silent = [
                    rank
                    for rank in range(self._world)
                    if self._heard[rank] < woken - self._silence and not self._words[rank].startswith(_LEFT)
                ]
            if silent and not self._done.is_set():
                self._end(self._sentence(silent))
                return

    def _look(self) -> None:
        """Count once more and read everybody's count."""
        with self._lock:
            if self._done.is_set():
                return
            self._count += 1
            self._say(str(self._count))
            self._read()

    def _leave(self, why: str) -> None:
        with self._lock:
            if not self._done.is_set():
                self._done.set()
                self._say(f"{_LEFT} {why}")

    def _say(self, word: str) -> None:
        if not self._store_gone:
            try:
                self._store.set(f"word/{self._rank}", word)
            except RuntimeError:
                self._store_gone = True

    def _read(self) -> None:
        if self._store_gone:
            return
        try:
            words = self._store.multi_get([f"word/{rank}" for rank in range(self._world)])
        except RuntimeError:
            self._store_gone = True
            return
        now = time.monotonic()
        for rank, word in enumerate(map(_text, words)):
            if word != self._words[rank]:
                self._words[rank], self._heard[rank] = word, now


def is_broken_connection(error: BaseException) -> bool:
    """Whether a collective failed because of another process."""
    while error is not None:
        text = str(error).lower()
        named = type(error).__name__.startswith("Dist")
        if isinstance(error, RuntimeError) and (named or any(sign in text for sign in _SIGNS)):
            return True
        error = error.__cause__
    return False


_SIGNS = (
    "gloo/transport",
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "nccl",
    "timed out waiting",
)


def _end_later(status: int, seconds: float = 40.0) -> None:
    """Closing what belongs to a broken collective may wait for the dead: not for longer than this."""
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()


def _end_process(sentence: str) -> None:
    print(f"failed: {sentence}", file=sys.stderr, flush=True)
    os._exit(1)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def call_the_roll(ranks: Ranks) -> RollCall:
    """Of the processes that have joined by `torch.distributed.init_process_group`, over the same store."""
    from torch.distributed import PrefixStore, TCPStore, distributed_c10d

    # A connection of its own: the group's waits for whatever it was asked last.
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = PrefixStore("pixelbert_fast/roll", TCPStore(host, port, is_master=False, wait_for_workers=False))
    place = f"process id {os.getpid()} on {socket.gethostname()}"
    roll = RollCall(store, ranks.rank, ranks.world, place, interval=max(2.0, ranks.world / 64))
    # In the first process it is the store itself, which must outlive the groups.
    roll.server = distributed_c10d._get_default_store()
    return roll
