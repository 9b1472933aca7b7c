"""One small fine-tuning from the package's own model, on a set that it renders: build, train, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pixelbert_fast import PixelBertForPreTraining, PixelBertForVisualQuestionAnswering, cli, pretrained


def test_a_step_of_fine_tuning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes, out = tmp_path / "scenes", tmp_path / "run"
    changes = {
        "output": out,
        "data.directory": scenes,
        "data.build.images": 40,
        "start.checkpoint": pretrained.folder(),
        "training.epochs": "null",
        "training.steps": 2,
        "training.images_per_batch": 4,
        "evaluation.splits": "[test]",
        "evaluation.images": 4,
    }
    status = cli.main(
        ["train", "--config", "vqa_scenes", *(f"{key}={value}" for key, value in changes.items())]
    )
    assert status == 0, capsys.readouterr().err
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["metrics"]["test"]["questions"] > 0
    steps = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any(record["kind"] == "train" and record["step"] == 2 for record in steps)
    trained = PixelBertForVisualQuestionAnswering.from_pretrained(out / "checkpoint").state_dict()
    start = PixelBertForPreTraining.from_pretrained(pretrained.folder()).state_dict()
    common = [name for name in start if name in trained and trained[name].ndim > 1]
    assert len(common) > 20
    assert all(torch.isfinite(trained[name]).all() for name in common)
    # Two steps of warm-up: every weight has moved, and none far.
    moved = [(trained[name] - start[name]).abs().max().item() for name in common]
    assert all(0 < distance < 0.1 for distance in moved), moved
