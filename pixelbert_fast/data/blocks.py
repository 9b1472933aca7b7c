"""Blocks of a build: rendered by worker processes, written whole or not at all, joined into a split."""

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelbert_fast.data.records import features_of
from pixelbert_fast.errors import RunError

# About as large as an Arrow file may get before it is better cut in two: memory-mapped, size itself costs
# nothing.
ROWS_A_FILE = 50_000
# Images held in memory before they are written: a block of large photographs would not fit otherwise.
HELD_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a builder's `render` returns for a record that cannot be made: its key, and why."""

    key: str
    why: str


@dataclass(slots=True)
class Block:
    """Records `start`, `start + 1`, ... of a split by their specs, and the two files they are written to."""

    split: str
    start: int
    specs: Sequence

    def arrow(self, directory: Path) -> Path:
        return directory / f"{self.split}-{self.start:09d}.arrow"

    def summary(self, directory: Path) -> Path:
        """The JSON file written last: a block counts as done once it is there."""
        return directory / f"{self.split}-{self.start:09d}.json"

    def done(self, directory: Path) -> bool:
        """Whether both files are whole: a machine that loses its power may keep names and lengths alone."""
        try:
            told = json.loads(self.summary(directory).read_text())
            gone = {entry["index"] for entry in told["dropped"] if entry.keys() == {"index", "key", "why"}}
            mine = range(self.start, self.start + len(self.specs))
            if not gone <= set(mine) or told["rows"] != len(self.specs) - len(gone):
                return False
            return not told["rows"] or _sha256(self.arrow(directory)) == told["sha256"]
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False

    def dropped(self, directory: Path) -> list[dict]:
        """[{"index": place in the split's specs, "key", "why"}, ...]"""
        return json.loads(self.summary(directory).read_text())["dropped"]

    def rows(self, directory: Path) -> int:
        return json.loads(self.summary(directory).read_text())["rows"]


def render_blocks(
    builder: Any, blocks: list[Block], directory: Path, workers: int, progress: Callable[[int, int], None]
) -> None:
    """Render every block that is not done yet into `directory`, in `workers` processes.

    Raises RunError when a worker process dies, and whatever `builder.render` raises.
    """
    total = sum(len(block.specs) for block in blocks)
    left = [block for block in blocks if not block.done(directory)]
    progress(total - sum(len(block.specs) for block in left), total)
    workers = min(workers, len(left))
    if workers <= 1:
        for block in left:
            progress(write_block(builder, block, directory), total)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # Spawned, not forked: the caller may hold threads (torch, a progress bar) that a fork would copy half of.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (builder, directory))
    try:
        with _one_thread_each():
            futures = [pool.submit(_write_in_worker, block) for block in left]
        for future in as_completed(futures):
            progress(future.result(), total)
    except BrokenProcessPool as error:
        raise RunError(
            "a worker process of the build died, perhaps for want of memory: run the same build again"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Start processes that do their arithmetic in one thread: there is a process for every CPU already."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_worker: tuple[Any, Path] | None = None


def _start_worker(builder: Any, directory: Path) -> None:
    global _worker
    _worker = (builder, directory)
    # Ctrl-C reaches every process of a terminal; the parent alone decides, and lets blocks under way finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End this worker with its parent: killed outright, the parent leaves it waiting for work for ever."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_in_worker(block: Block) -> int:
    builder, directory = _worker
    return write_block(builder, block, directory)


def write_block(builder: Any, block: Block, directory: Path) -> int:
    """Render one block and write its files; the number of specs done."""
    arrow, dropped = _ArrowFile(block.arrow(directory)), []
    with arrow:
        for index, spec in enumerate(block.specs, block.start):
            record = builder.render(spec)
            if isinstance(record, Dropped):
                dropped.append({"index": index, "key": record.key, "why": record.why})
            else:
                arrow.write(record)
    path = block.summary(directory)
    beside = path.with_name(path.name + ".new")
    told = {"rows": arrow.rows, "dropped": dropped}
    if arrow.rows:
        told["sha256"] = _sha256(block.arrow(directory))
    beside.write_text(json.dumps(told))
    os.replace(beside, path)
    return len(block.specs)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _ArrowFile:
    """An Arrow file that is made with the first record and holds at most HELD_BYTES of images in memory."""

    def __init__(self, path: Path):
        self.rows = 0
        self._path, self._writer, self._held = path, None, 0

    def __enter__(self) -> "_ArrowFile":
        return self

    def write(self, record: dict) -> None:
        if self._writer is None:
            from datasets.arrow_writer import ArrowWriter

            self._writer = ArrowWriter(features=features_of(record), path=os.fspath(self._path))
        self._writer.write(record)
        self.rows += 1
        self._held += len(record["image"])
        if self._held > HELD_BYTES:
            self._writer.write_examples_on_file()
            self._held = 0

    def __exit__(self, kind, *_) -> None:
        if self._writer is None:
            return
        if kind is None:
            self._writer.finalize()
        self._writer.close()


def write_split(target: Path, source: list[Path] | list[dict], name: str, identity: dict) -> None:
    """Write one split from Arrow files of blocks, or from records, as a directory that `load_from_disk` maps.

    The same source gives the same bytes: the fingerprint that `datasets` would take from the clock is derived
    from what the set is.
    """
    from datasets import Dataset, concatenate_datasets

    if isinstance(source[0], Path):
        whole = concatenate_datasets([Dataset.from_file(os.fspath(path)) for path in source])
    else:
        whole = Dataset.from_list(source, features=features_of(source[0]))
    fingerprint = hashlib.sha256(json.dumps([identity, name], sort_keys=True).encode()).hexdigest()[:16]
    whole = Dataset(whole.data, info=whole.info, split=None, fingerprint=fingerprint)
    with no_bars():
        whole.save_to_disk(os.fspath(target), num_shards=1 + (len(whole) - 1) // ROWS_A_FILE)


@contextmanager
def no_bars() -> Iterator[None]:
    """Keep the bars of `datasets` from breaking into ours."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
