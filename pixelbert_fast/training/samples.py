"""Which samples each update was trained on: what shows that a resumed run repeats and leaves out none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.record_file import RecordFile, cut_records


class SampleLog:
    """A task that writes a line {"step", "keys"} of every batch it is trained on, and else is as it was.

    Args:
        task: see `tasks.protocol.Task`; its batches must hold `sample_keys`.
        folder: gets `rank-N.jsonl` of each process. Lines of later steps than `step`, left by a run that was
            killed after its last state, are dropped first, from the files of all processes there ever were.
        ranks: every process makes one.
        step: updates made.
        accumulation: batches an update.
    """

    def __init__(self, task: Any, folder: Path, ranks: Ranks, *, step: int, accumulation: int) -> None:
        self._task = task
        self._batches = step * accumulation
        self._accumulation = accumulation
        ranks.first_does(lambda: _cut(folder, step))
        self._file = RecordFile(folder / f"rank-{ranks.rank}.jsonl")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The task's; `batch` is one of the training's."""
        if "sample_keys" not in batch:
            raise UserError(
                f"the task {self._task.name} does not name its samples; set training.log_samples=false"
            )
        step = self._batches // self._accumulation + 1
        self._batches += 1
        self._file.write({"step": step, "keys": batch["sample_keys"].tolist()})
        return self._task.loss(model, batch)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def _cut(folder: Path, step: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("rank-*.jsonl"):
        cut_records(path, step)
