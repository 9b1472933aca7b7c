"""What a run writes while it trains, in the first process only: JSON lines, TensorBoard, and the bar."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm


class RunLog:
    """`log.jsonl` (one record a line) and `tensorboard/` under a run's folder.

    Args:
        folder: the run's folder.
        writes: False makes every method do nothing (the other processes).
        resumed_step: records of later steps, left by a run that was killed after its last saved state, are
            dropped.
    """

    def __init__(self, folder: Path, *, writes: bool, resumed_step: int = 0) -> None:
        self._file = self._board = None
        if not writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.jsonl"
        kept = _records_until(path, resumed_step) if resumed_step else []
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed by close()
        self._file.writelines(kept)
        self._file.flush()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            print("tensorboard is not installed: the run is logged to log.jsonl only", file=sys.stderr)
        else:
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Write one record; its numbers also go to TensorBoard under `kind/name`, or `kind/name/name`."""
        if self._file is None:
            return
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in _numbers(values, kind):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish both."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def _records_until(path: Path, step: int) -> list[str]:
    kept = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the last line of a killed run may be cut
            if record.get("step", 0) <= step:
                kept.append(line + "\n")
    return kept


def _numbers(values: dict[str, Any], prefix: str) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _numbers(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((f"{prefix}/{name}", float(value)))
    return found


def bar(title: str, total: int | None, done: int = 0, *, shown: bool = True, unit: str = "step") -> tqdm:
    """A progress bar on stderr; where that is no terminal, a line now and then and not many a second."""
    interval = 0.5 if sys.stderr.isatty() else 15.0
    return tqdm(
        total=total,
        initial=done,
        desc=title,
        unit=unit,
        disable=not shown,
        mininterval=interval,
        maxinterval=interval,
        dynamic_ncols=True,
        smoothing=0.1,
    )
