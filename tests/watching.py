"""What a process and everything it has started hold: memory, handles, threads, shared memory, a folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")
# What a run writes more of the longer it runs, as it should.
RECORDS = ("log.jsonl", "tensorboard", "samples")
_ROLLUP = {"Rss": "rss", "Pss": "pss", "Anonymous": "anonymous"}


def tree_of(root: psutil.Process) -> list[psutil.Process]:
    """A process and its descendants; empty where it has ended."""
    try:
        alive = root.is_running() and root.status() != psutil.STATUS_ZOMBIE
        return [root, *root.children(recursive=True)] if alive else []
    except psutil.NoSuchProcess:
        return []


def sample(processes: list[psutil.Process], folder: Path) -> dict[str, int]:
    """What these processes hold now, bytes and counts, and the sizes of a run's folder.

    `stopped`: how many of them a SIGSTOP holds. A process that ends meanwhile counts as far as it was read.
    """
    found = dict.fromkeys(("rss", "pss", "anonymous", "handles", "threads", "processes", "stopped"), 0)
    shared: dict[tuple[int, int], int] = {}
    for process in processes:
        with contextlib.suppress(OSError, psutil.Error):
            place = Path("/proc", str(process.pid))
            for name, value in rollup(place).items():
                found[name] += value
            found["handles"] += len(os.listdir(place / "fd"))
            found["threads"] += len(os.listdir(place / "task"))
            found["processes"] += 1
            found["stopped"] += process.status() == psutil.STATUS_STOPPED
            shared |= shared_of(place)
    records, rest = sizes(folder)
    more = {"shm_files": len(shared), "shm_bytes": sum(shared.values()), "records": records, "states": rest}
    return found | more


def rollup(place: Path) -> dict[str, int]:
    """`rss`, `pss` and `anonymous` bytes of the process in /proc/PID."""
    found = {}
    for line in (place / "smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in _ROLLUP:
            found[_ROLLUP[name]] = int(value.split()[0]) * 1024
    return found


def shared_of(place: Path) -> dict[tuple[int, int], int]:
    """Bytes by (device, inode) of what a process has open or mapped in /dev/shm, unlinked or not."""
    found: dict[tuple[int, int], int] = {}
    for line in (place / "maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith(f"{SHARED_MEMORY}/"):
            first, last = (int(end, 16) for end in fields[0].split("-"))
            major, minor = (int(part, 16) for part in fields[3].split(":"))
            key = (os.makedev(major, minor), int(fields[4]))
            found[key] = found.get(key, 0) + last - first
    for handle in (place / "fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(handle).startswith(f"{SHARED_MEMORY}/"):
                about = handle.stat()
                found[about.st_dev, about.st_ino] = about.st_size
    return found


def shared_files() -> dict[str, int]:
    """Bytes by name of what lies in /dev/shm."""
    found = {}
    if SHARED_MEMORY.is_dir():
        for path in SHARED_MEMORY.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    found[str(path.relative_to(SHARED_MEMORY))] = path.stat().st_size
    return found


def left_behind(before: set[str], pids: set[int]) -> dict[str, int]:
    """Bytes by name of what is in /dev/shm since `before`, is nobody's who runs, and can be of `pids`.

    A name that carries the process it is of (torch_PID_...) tells that; one that carries none counts as ours.
    """
    mine, held = os.getuid(), set()
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            held |= {inode for _, inode in shared_of(Path("/proc", str(process.pid)))}
    left = {}
    for name, size in shared_files().items():
        numbers = {int(number) for number in re.findall(r"(?<![0-9a-zA-Z])\d+(?![0-9a-zA-Z])", name)}
        with contextlib.suppress(OSError):
            about = (SHARED_MEMORY / name).stat()
            others = numbers and not numbers & pids and name.startswith(("torch_", "__KMP"))
            if name not in before and about.st_uid == mine and about.st_ino not in held and not others:
                left[name] = size
    return left


def sizes(folder: Path) -> tuple[int, int]:
    """Bytes of a run's records and of everything else in its folder."""
    records = rest = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                size = path.stat().st_size
                if path.relative_to(folder).parts[0] in RECORDS:
                    records += size
                else:
                    rest += size
    return records, rest


def last_record(log: Path) -> dict:
    """The newest whole `train` record of a run's log.jsonl; empty before the first."""
    with contextlib.suppress(OSError):
        with open(log, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 32768, 0))
            lines = file.read().splitlines()
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if record.get("kind") == "train":
                    return record
    return {}


class ActiveTime:
    """Counts the seconds in which training made steps; a pause of the watcher or of the training is none.

    Args:
        seconds: counted in earlier sittings.
        gap: two looks further apart are a pause, by SIGSTOP or a sleeping machine.
        stall: the longest an evaluation, a state or a slow interval may go without a record of a step.
    """

    def __init__(self, seconds: float, gap: float, stall: float = 120.0) -> None:
        self.seconds, self.gap, self.stall = seconds, gap, stall
        self._last: float | None = None
        self._step: int | None = None
        self._quiet = float("inf")

    def look(self, now: float, step: int, stopped: bool) -> bool:
        """Whether what was between the last look and this one counts, and is counted."""
        passed = now - self._last if self._last is not None else None
        moved = self._step is not None and step != self._step
        self._last, self._step = now, step
        if passed is None or passed > self.gap or stopped:
            return False
        self._quiet = 0.0 if moved else self._quiet + passed
        if self._quiet > self.stall:
            return False
        self.seconds += passed
        return True
