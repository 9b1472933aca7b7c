"""Epochs that differ in length: resumed where they were."""

from __future__ import annotations

import itertools
import os
import signal

import pytest

from pixelbert_fast.training import run as runs
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.loop import Stopped
from pixelbert_fast.training.ranks import Ranks
from tests.training_task import ToyTask


def test_epochs_of_other_lengths_are_resumed_where_they_were(monkeypatch, tmp_path):
    """Epoch e has 3 + e % 3 batches: what is read, and the schedule, are those of an uninterrupted run."""

    seen = []

    class Uneven(ToyTask):
        def steps_per_epoch(self, world, epoch=0, start=0):
            return 3 + epoch % 3 - start

        def batches(self, epoch, rank, world, skip=0, start=0):
            for batch in itertools.islice(super().batches(epoch, rank, world), start, 3 + epoch % 3):
                if batch["keys"][1] >= start + skip:
                    yield batch

        def loss(self, model, batch):
            seen.append(batch["keys"])
            return super().loss(model, batch)

    def run(folder, stop=None):
        options = {"epochs": 4, "images_per_batch": 4, "log_every": 1, "prefetch": 2}
        config = RunConfig(output=str(folder), training=options)

        def make(built, device):
            task = Uneven(built)
            task.on_loss = lambda call: call == stop and os.kill(os.getpid(), signal.SIGTERM)
            return task

        monkeypatch.setattr(runs, "_make_task", make)
        return runs.run(config, Ranks(), "plain")

    whole = run(tmp_path / "one")
    expected = seen.copy()
    seen.clear()
    # Four epochs, as long as the first.
    assert len(expected) == 12
    assert [key for key in expected if key[0] == 1] == [(1, 0), (1, 1), (1, 2), (1, 3)]
    for stop in (3, 4):
        with pytest.raises(Stopped):
            run(tmp_path / "two", stop)
    resumed = run(tmp_path / "two")
    assert seen == expected
    assert resumed.metrics["steps"] == whole.metrics["steps"] == 12
