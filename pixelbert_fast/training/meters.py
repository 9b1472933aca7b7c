"""What the time between two log records went into: the rates, the waiting, and the share of the peak."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pixelbert_fast.training.ranks import Ranks


class Clock:
    """Seconds spent training, what came of them since the last record, and the time since the last save.

    Evaluations and the writing of states are in no interval. The intervals are the host's: it waits for a GPU
    where a record is made, so that whole intervals are true, while a single step may be told too short by as
    much as the host runs ahead.
    """

    def __init__(self, position: Any) -> None:
        now = time.perf_counter()
        self._counted = self._ticked = self._rated = self._saved = self._stopped = now
        self._begin(position)

    def _begin(self, position: Any) -> None:
        self._pairs = position.pairs
        self._images = self._flops = 0
        self._waited = 0.0
        self._steps: list[float] = []

    def batch(self, waited: float, images: int, flops: int) -> None:
        """A batch of this process came after `waited` seconds."""
        self._waited += waited
        self._images += images
        self._flops += flops

    def tick(self) -> None:
        """A step is done."""
        now = time.perf_counter()
        self._steps.append(now - self._ticked)
        self._ticked = now

    def rate(self, position: Any) -> None:
        """Bring `position.seconds` up to date; `saved` takes the time until then out of the interval."""
        self._stopped = time.perf_counter()
        position.seconds += self._stopped - self._counted
        self._counted = self._stopped

    def interval(self, position: Any) -> dict[str, float]:
        """What happened since the last call, and begin anew; this process's, but for the pairs."""
        self.rate(position)
        seconds = max(self._stopped - self._rated, 1e-9)
        steps = sorted(self._steps) or [seconds]
        found = {
            "pairs_per_second": (position.pairs - self._pairs) / seconds,
            "images_per_second": self._images / seconds,
            "data_wait": min(self._waited / seconds, 1.0),
            "step_seconds": _quantile(steps, 0.5),
            "step_seconds_p95": _quantile(steps, 0.95),
            "tflops": self._flops / seconds / 1e12,
        }
        self._rated = self._stopped
        self._begin(position)
        return found

    def pause(self) -> None:
        """An evaluation begins: what follows is no training."""
        self._stopped = time.perf_counter()

    def go_on(self) -> None:
        """It is over."""
        self._counted += self._away()

    def since_save(self) -> float:
        """Seconds since `saved`."""
        return time.perf_counter() - self._saved

    def saved(self) -> None:
        """A state has been written."""
        self._away()
        self._saved = time.perf_counter()

    def _away(self) -> float:
        away = time.perf_counter() - self._stopped
        self._rated += away
        self._ticked += away
        return away


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of the ordered values do not pass."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def gradient_norms(engine: Any, ranks: Ranks) -> tuple[float, dict[str, float]]:
    """The norm of all gradients at the last update before any clipping, and by the optimiser's labels.

    NaN where that update was left out. Called by all processes, each of which may hold all gradients or,
    under ZeRO, pieces of them.
    """
    optimizer = engine.optimizer
    found = optimizer.gradient_norms()
    labels = list(dict.fromkeys(group["label"] for group in optimizer.param_groups))
    norms = torch.stack([found[one].float() for one in labels if one in found]) if found else torch.zeros(0)
    own = dict(zip((one for one in labels if one in found), norms.double().cpu().tolist(), strict=True))
    squares = ranks.mean([own.get(label, 0.0) ** 2 for label in labels])
    met, whole = math.sqrt(sum(squares)), engine.gradient_norm()
    if math.isnan(whole):  # an engine that neither clips nor asks
        whole = met
    if not math.isfinite(whole):  # left out, after or before the optimiser saw it
        return whole, dict.fromkeys(labels, math.nan)
    # Clipping scaled all alike, and so has the mean of pieces.
    factor = whole / met if met > 0 else 1.0
    return whole, {label: math.sqrt(one) * factor for label, one in zip(labels, squares, strict=True)}


def memory(device: torch.device) -> dict[str, float]:
    """MiB: what this process holds on the host, and the most it has held on its GPU, if it has one."""
    found = {"host": _resident() / 2**20}
    if device.type == "cuda":
        found["device_peak"] = torch.cuda.max_memory_allocated(device) / 2**20
    return {name: round(value, 1) for name, value in found.items()}


def _resident() -> float:
    """Bytes of this process's memory: now, or where the system does not tell, at most so far."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(most if sys.platform == "darwin" else 1024 * most)


def status(means: Mapping[str, float], figures: Mapping[str, float]) -> list[str]:
    """What the bar says, the most important first: the loss, what is late, the rate."""
    parts = [f"loss {means['loss']:.3f}"]
    if figures["data_wait"] >= 0.1:
        parts.append(f"waiting for data {100 * figures['data_wait']:.0f} %")
    rate = figures["pairs_per_second"]
    return [*parts, f"{rate:.0f} pairs/s" if rate >= 10 else f"{rate:.1f} pairs/s"]
