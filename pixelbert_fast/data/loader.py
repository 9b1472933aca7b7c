"""Batches made ahead of time by a background thread.

A thread, not processes: decoding and array work release the interpreter's lock, nothing is pickled, and no
shared memory is left in /dev/shm however a run ends.
"""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


def prefetch(iterator: Iterable[Item], depth: int) -> "Prefetched[Item]":
    """Iterates over `iterator` in a background thread that stays at most `depth` items ahead.

    An exception of the iterator is raised where its item would have come. The thread ends with the last
    item, with the exception, with `close()`, on leaving a `with` block, or when the result is no longer
    referred to.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    return Prefetched(iterator, depth)


class Prefetched(Generic[Item]):
    """An iterator fed by a thread; make one with `prefetch`."""

    def __init__(self, iterator: Iterable[Item], depth: int):
        self._queue: queue.Queue = queue.Queue(depth)
        self._stop = threading.Event()
        # The thread knows the queue and the event but not this object, so that dropping this object ends it.
        self.thread = threading.Thread(
            target=_produce, args=(iterator, self._queue, self._stop), name="prefetch", daemon=True
        )
        self.thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._stop.is_set():
            raise StopIteration
        item, error, last = self._queue.get()
        if error is not None:
            self.close()
            raise error
        if last:
            self.close()
            raise StopIteration
        return item

    def close(self) -> None:
        """Ends the thread and waits until it has finished the item in hand. May be called twice."""
        self._stop.set()
        # Room for the one item the thread may be holding, so that it never waits for a reader that has gone.
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break
        if self.thread is not threading.current_thread():
            self.thread.join()

    def __enter__(self) -> "Prefetched[Item]":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _produce(iterator: Iterable, out: queue.Queue, stop: threading.Event) -> None:
    iterator = iter(iterator)
    try:
        for item in iterator:
            if stop.is_set():
                return
            out.put((item, None, False))
            if stop.is_set():
                return
        out.put((None, None, True))
    except BaseException as error:  # whatever it is, it belongs to the reader
        out.put((None, error, False))
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
