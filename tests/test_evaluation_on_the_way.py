"""What comes between two steps, evaluations and saves: it changes neither the run nor what is told of it."""

from __future__ import annotations

import functools
import json
import os
import signal

import pytest

from pixelbert_fast.training.loop import Stopped
from tests.test_checkpoint import at_call, configuration, same, trained
from tests.training_task import ToyTask


def test_an_evaluation_on_the_way_changes_nothing(monkeypatch, tmp_path):
    plain = trained(monkeypatch, configuration(tmp_path / "plain", steps=14))[1]
    config = configuration(tmp_path / "run", steps=14)
    config = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"every_epochs": 1})}
    )
    assert same(trained(monkeypatch, config)[1], plain)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [6, 12]


@pytest.mark.parametrize("moment", ["in the step before", "in the evaluation"])
def test_told_to_stop_an_evaluation_is_made_once_and_by_whom_there_is_time(monkeypatch, tmp_path, moment):
    config = configuration(tmp_path / "run", steps=14)
    config = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"every_epochs": 1})}
    )
    stop = functools.partial(os.kill, os.getpid(), signal.SIGTERM)
    made = []

    def evaluate(self, model, progress=None, limit=None):
        made.append(self)
        if moment == "in the evaluation" and len(made) == 1:
            stop()
        return {"val": {"accuracy": 0.5}}

    monkeypatch.setattr(ToyTask, "evaluate", evaluate)
    with pytest.raises(Stopped, match="after step 6"):
        trained(monkeypatch, config, on_loss=at_call(6, stop) if moment == "in the step before" else None)
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["kind"] == "evaluation" for line in lines) == len(made)
    assert len(made) == (moment == "in the evaluation")
    trained(monkeypatch, config)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [6, 12]
    assert len(made) == 3  # the closing one too


def test_saves_do_not_shorten_what_a_record_is_the_mean_of(monkeypatch, tmp_path):
    means = []
    for name, minutes in (("without", 0.0), ("each step", 1e-9)):
        config = configuration(tmp_path / name, log_every=3, checkpoint_every_minutes=minutes)
        trained(monkeypatch, config)
        lines = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        means.append([(line["step"], line["loss"]) for line in lines if line["kind"] == "train"])
    assert [step for step, _ in means[0]] == [3, 6]
    assert means[0] == means[1]
