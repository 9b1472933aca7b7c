"""The best checkpoint so far, by one figure, as a folder that `from_pretrained` reads."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pixelbert_fast.training.durable import replace_folder, settle

_RECORD = "best.json"


class BestCheckpoint:
    """Keeps `folder` the checkpoint with the highest value of one figure; used by one process.

    `best.json` in it holds {"metric", "value", "step"}.

    Args:
        metric: of the task's headline.
    """

    def __init__(self, folder: Path, metric: str) -> None:
        self._folder = folder
        self._metric = metric

    def consider(self, step: int, headline: Mapping[str, float | None], save: Callable[[Path], Any]) -> bool:
        """Put what `save` writes there if `headline` is better than what is; returns whether it was done.

        What goes wrong is told on stderr, and the folder stays as it was: a long run does not end for it.
        """
        value, before = headline.get(self._metric), self._value()
        if value is None or (before is not None and not value > before):
            if self._metric not in headline:
                self._warn(step, f"evaluation.best is none of the task's figures {', '.join(headline)}")
            return False

        def write(into: Path) -> None:
            save(into)
            record = {"metric": self._metric, "value": value, "step": step}
            (into / _RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")

        try:
            replace_folder(self._folder, write)
        except Exception as error:  # safetensors and transformers have their own for a full disk
            self._warn(step, " ".join(str(error).split()) or type(error).__name__)
            return False
        return True

    def _warn(self, step: int, reason: str) -> None:
        what = f"no checkpoint is kept as the best by {self._metric!r}"
        print(f"\nwarning: step {step}: {what}: {reason}", file=sys.stderr, flush=True)

    def _value(self) -> float | None:
        settle(self._folder)
        try:
            record = json.loads((self._folder / _RECORD).read_text(encoding="utf-8"))
            return record["value"] if record["metric"] == self._metric else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
