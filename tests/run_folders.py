"""Folders of runs as training leaves them, made without training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pixelbert_fast.training.config import RunConfig

HOSTILE = (
    "<script>document.title = 'run'</script><img src=x onerror=\"document.title='run'\"> \"a\" & 'b' </style>"
)
SPLIT = {
    "images": 40,
    "dropped": 0,
    "itm_accuracy": 0.9,
    "itm_accuracy_matched": 0.95,
    "itm_accuracy_mismatched": 0.85,
    "itm_pairs": 400,
    "mlm_accuracy_all": 0.5,
    "mlm_tokens_all": 1234,
    "mlm_accuracy_content": 0.7,
    "mlm_accuracy_content_wrong_image": 0.3,
    "mlm_words_content": 200,
    "words": {"colour": {"right_image": 0.8, "wrong_image": 0.1, "items": 120}},
}


def config(**sections: Any) -> dict[str, Any]:
    """A configuration with every default, as `run.json` has it. sections: laid over it."""
    tree = {"training": {"epochs": 3.0}, **sections}
    return RunConfig.model_validate(tree).model_dump(mode="json")


def train_record(step: int, **values: Any) -> dict[str, Any]:
    """As the loop writes it."""
    return {
        "kind": "train",
        "step": step,
        "epoch": step / 100,
        "loss": 5 * math.exp(-step / 50) + 0.1,
        "mlm_loss": 4 * math.exp(-step / 50) + 0.1,
        "itm_accuracy": 1 - 0.5 * math.exp(-step / 50),
        "gradient_norm": 3.0,
        "gradient_norms": {"backbone": 1.0, "transformer": 2.8},
        "lr": {"backbone": 1e-3, "transformer": 1e-4},
        "pairs_per_second": 150.0,
        "images_per_second": 40.0,
        "data_wait": 0.01,
        "step_seconds": 0.4,
        "step_seconds_p95": 0.6,
        "mfu": None,
        "memory": {"host": 900.0 + step},
        "seconds": 0.4 * step,
        **values,
    }


def run_folder(
    folder: Path,
    *,
    steps: int = 10,
    finished: bool = True,
    evaluated: tuple[int, ...] = (),
    tail: bytes = b"",
    metrics: dict[str, Any] | None = None,
    task: str = "pretrain",
    **sections: Any,
) -> Path:
    """A run's folder.

    Args:
        steps: records of training, ten steps apart.
        evaluated: steps that an evaluation on the way follows.
        tail: what stands after the log's last record.
        metrics: by split.
        sections: of the configuration.
    """
    folder.mkdir(parents=True)
    described = config(task=task, **sections)
    about = {"format": "pixelbert_fast run", "version": 1, "config": described}
    about |= {"versions": {"torch": "2.13.0"}, "machine": {"processor": HOSTILE, "cores": 2, "gpus": []}}
    (folder / "run.json").write_text(json.dumps(about))
    found = {"val": SPLIT} if metrics is None else metrics
    lines = []
    for step in range(10, 10 * steps + 1, 10):
        lines.append(train_record(step))
        if step in evaluated:
            lines.append({"kind": "evaluation", "step": step, "metrics": found})
    content = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "log.jsonl").write_bytes(content.encode() + tail)
    if finished:
        told = {"task": task, "metrics": found, "steps": 10 * steps, "pairs": 640 * steps, "processes": 2}
        told |= {"training_seconds": 3700.0, "start_seconds": 61.0, "versions": {"torch": "2.13.0"}}
        (folder / "metrics.json").write_text(json.dumps({**told, "config": described}))
    return folder
