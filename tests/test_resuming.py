"""Going on from a saved state of another start."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from pixelbert_fast.errors import RunError
from pixelbert_fast.training import run as runs
from pixelbert_fast.training.loop import Stopped
from tests.test_checkpoint import ALONE, at_call, configuration
from tests.training_task import ToyTask


class HalfFrozen(ToyTask):
    """Its backbone is not trained, and comes from a file that may change between two sittings."""

    start = 0.25

    def __init__(self, config, device="cpu", **options):
        super().__init__(config, device, **options)
        for parameter in self.model.backbone.parameters():
            torch.nn.init.constant_(parameter, self.start)
            parameter.requires_grad_(False)


def test_what_is_not_trained_must_be_what_it_was_when_the_run_began(monkeypatch, tmp_path):
    config = configuration(tmp_path / "run")

    def sitting(start, on_loss=None):
        monkeypatch.setattr(HalfFrozen, "start", start)
        task = HalfFrozen(config)
        task.on_loss = on_loss
        monkeypatch.setattr(runs, "_make_task", lambda *_: task)
        return runs.run(config, ALONE, "plain")

    with pytest.raises(Stopped):
        sitting(0.25, at_call(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(RunError, match=r"from other weights .*\(backbone\.0\.weight is not trained, and"):
        sitting(0.5)
    assert sitting(0.25).metrics["steps"] == 6
