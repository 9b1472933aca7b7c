"""Timing contestants fairly: they take turns in one run, and medians and their spread are reported.

Taking turns lets a busy moment of the machine meet all of them. On a GPU events are timed, and a buffer
larger than its cache is written before each run, so that none finds there what the one before it left.
"""

from __future__ import annotations

import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

CACHE_BYTES = 256 << 20
RUNS_OF_A_PERCENTILE = 100


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one contestant.

    Attributes:
        median, low, high: the median and the quartiles.
        fastest, runs: the least, and how many there are.
        samples: all of them, in the order of the rounds.
    """

    median: float
    low: float
    high: float
    fastest: float
    runs: int
    samples: tuple[float, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Timing:
        low, median, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
        return cls(median, low, high, min(milliseconds), len(milliseconds), tuple(milliseconds))

    def as_dict(self) -> dict[str, float]:
        """For a report: without the samples, and with the 0.99 quantile where there are enough for one."""
        found = {name: round(value, 5) for name, value in vars(self).items() if name != "samples"}
        if self.runs >= RUNS_OF_A_PERCENTILE:
            found["p99"] = round(statistics.quantiles(self.samples, n=100, method="inclusive")[98], 5)
        return found


def take_turns(
    runs: dict[str, Callable[[], object]],
    device: str,
    *,
    rounds: int,
    seconds: float = 20.0,
    processor_time: bool = False,
) -> dict[str, Timing]:
    """Time each of `runs` once a round, after two rounds that do not count.

    Args:
        device: "cpu" or "cuda": which clock.
        rounds: how many rounds at most; at least five are run, however long they take.
        seconds: no further round is begun after that long.
        processor_time: on a CPU, what this process's threads have worked, and not what the clock says: of a
            busy machine it tells more.
    """
    on_cpu = _worked if processor_time else _on_cpu
    clock = _on_gpu(device) if torch.device(device).type == "cuda" else on_cpu
    for _ in range(2):
        for run in runs.values():
            run()
    milliseconds: dict[str, list[float]] = {name: [] for name in runs}
    start = time.monotonic()
    for number in range(rounds):
        if number >= 5 and time.monotonic() - start > seconds:
            break
        for name, run in runs.items():
            milliseconds[name].append(clock(run))
    return {name: Timing.of(each) for name, each in milliseconds.items()}


def _on_cpu(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def _worked(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return 1e3 * (time.process_time() - start)


def _on_gpu(device: str) -> Callable[[Callable[[], object]], float]:
    cache = torch.empty(CACHE_BYTES, dtype=torch.uint8, device=device)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def clock(run: Callable[[], object]) -> float:
        # Written long enough for the launches of `run` to queue behind it: then only the device is timed.
        cache.zero_()
        cache.zero_()
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    return clock


def copy_bandwidth(device: str, size: int) -> Callable[[], object]:
    """A run that reads and writes `size` bytes each: what moving bytes costs here, in the same turns."""
    source = torch.ones(max(size, 4) // 4, dtype=torch.float32, device=device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def machine(device: str) -> dict[str, object]:
    """What a figure depends on: processor or GPU, threads, versions."""
    found: dict[str, object] = {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.startswith("cuda"):
        found["cuda"] = torch.version.cuda or torch.version.hip
        import triton

        found["triton"] = triton.__version__
    return found


def described(machine: dict[str, object]) -> str:
    """A machine in one line."""
    return ", ".join(f"{name} {value}" if name != "device" else str(value) for name, value in machine.items())


def processor() -> str:
    """The processor's name with its number of threads here."""
    return f"{processor_model()}, {platform.machine()}, {torch.get_num_threads()} threads"


def processor_model() -> str:
    """The processor's name, as the system tells it."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return name


def peak_memory(run: Callable[[], object], device: str) -> int | None:
    """Bytes that `run` holds at its peak beyond what was held before it; None where that cannot be told.

    Of a CPU the pages that the kernel counts for the process, after what is free has been given back to it.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        ctypes.CDLL(None).malloc_trim(0)
        reset.write_text("5")  # the peak is what there is now
        before = _kilobytes(status, "VmRSS")
        run()
        return (_kilobytes(status, "VmHWM") - before) * 1024
    except (AttributeError, OSError):
        return None


def peak_memories(
    runs: Mapping[str, Callable[[], object]], device: str, replayed: Sequence[str] = ()
) -> dict[str, int | None]:
    """`peak_memory` of each of `runs`; on a GPU None of `replayed`.

    A recorded graph keeps its memory from run to run: what a run of it takes anew says nothing of that.
    """
    hidden = replayed if torch.device(device).type == "cuda" else ()
    return {who: None if who in hidden else peak_memory(run, device) for who, run in runs.items()}


def _kilobytes(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))
