"""`pixelbert export`: from a run that has ended or not to a folder that `from_pretrained` reads."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from pixelbert_fast import PixelBertForPreTraining, PixelBertProcessor, cli, tasks
from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.training import run as runs
from pixelbert_fast.training.checkpoint import StateFolder
from pixelbert_fast.training.export import export
from pixelbert_fast.training.loop import Stopped
from pixelbert_fast.training.ranks import Ranks
from tests.test_pretraining_task import built, config  # noqa: F401 - a fixture
from tests.training_task import ToyTask

ALONE = Ranks()


def stop_at(step, make=tasks.make_task):
    """A task like the real one, and the process is told to stop at a step."""

    def made(options, device):
        task = make(options, device)
        loss, calls = task.loss, []

        def counted(model, batch):
            calls.append(1)
            if len(calls) == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return loss(model, batch)

        task.loss = counted
        return task

    return made


@pytest.fixture
def unfinished(built, tmp_path, monkeypatch):  # noqa: F811
    """A run of three steps that was stopped after the second; its folder and configuration."""
    training = {"epochs": None, "steps": 3, "images_per_batch": 8}
    options = config(built, training=training).model_copy(update={"output": str(tmp_path / "run")})
    monkeypatch.setattr(runs, "_make_task", stop_at(2))
    with pytest.raises(Stopped):
        runs.run(options, ALONE, "plain")
    monkeypatch.setattr(runs, "_make_task", tasks.make_task)
    return tmp_path / "run", options


def assert_same(model, state):
    found = model.state_dict()
    assert all(torch.equal(found[name], state[name]) for name in {*found, *state})


def test_an_unfinished_run_a_state_of_it_and_a_finished_one(unfinished, tmp_path, capsys, built):  # noqa: F811
    run, options = unfinished
    state = StateFolder(run / "resume", ALONE).read().shared["model"]
    for number, given in enumerate([run, run / "resume" / "step-00000002"]):
        out = tmp_path / f"out{number}"
        assert cli.main(["export", str(given), "--out", str(out)]) == 0
        source = run / "resume" / "step-00000002"
        assert capsys.readouterr().out.splitlines()[-1] == f"{out}: from {source}, after step 2"
        assert_same(PixelBertForPreTraining.from_pretrained(out), state)
        processor = PixelBertProcessor.from_pretrained(out)
        assert processor.tokenizer.vocab_size == state["pixelbert.embeddings.word_embeddings.weight"].shape[0]
        made = json.loads((out / "export.json").read_text())
        assert (made["format"], made["step"]) == ("pixelbert_fast export", 2)
        assert made["made_by"]["versions"]["torch"] == torch.__version__
    # The run goes on untouched, and what it ends with takes the place of the earlier export.
    result = runs.run(options, ALONE, "plain")
    assert result.metrics["steps"] == 3
    assert cli.main(["export", str(run), "--out", str(tmp_path / "out0")]) == 0
    final = PixelBertForPreTraining.from_pretrained(run / "checkpoint").state_dict()
    assert_same(PixelBertForPreTraining.from_pretrained(tmp_path / "out0"), final)
    assert any(not torch.equal(final[name], state[name]) for name in state)
    assert export(run / "checkpoint", tmp_path / "out1").step is None
    assert_same(PixelBertForPreTraining.from_pretrained(tmp_path / "out1"), final)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A stopped run of the toy task, which export builds as well; its folder."""
    from tests.test_checkpoint import configuration

    monkeypatch.setattr(tasks, "make_task", ToyTask)
    monkeypatch.setattr(runs, "_make_task", stop_at(2, ToyTask))
    with pytest.raises(Stopped):
        runs.run(configuration(tmp_path / "run"), ALONE, "plain")
    return tmp_path / "run"


@pytest.mark.parametrize("there", ["file", "folder", "checkpoint"])
def test_what_is_no_export_is_never_overwritten(toy, tmp_path, there):
    out = tmp_path / "out"
    if there == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / ("config.json" if there == "checkpoint" else "mine")).write_text("{}")
    with pytest.raises(UserError, match="give another --out"):
        export(toy, out)
    assert out.is_file() or len(list(out.iterdir())) == 1
    (tmp_path / "empty").mkdir()
    assert export(toy, tmp_path / "empty").step == 2


def test_every_mistake_is_one_sentence(toy, tmp_path, monkeypatch):
    def told(error, given=toy, out=tmp_path / "out"):
        with pytest.raises(error) as caught:
            export(given, out)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    assert "is no run's folder, no state in one (resume/step-N) and no" in told(UserError, tmp_path)
    (tmp_path / "file").touch()
    assert "cannot be written: " in told(RunError, out=tmp_path / "file" / "out")

    class Other(ToyTask):
        def __init__(self, config):
            super().__init__(config)
            self.model.head = torch.nn.Linear(8, 5)

    with monkeypatch.context() as other:
        other.setattr(tasks, "make_task", Other)
        assert "does not fit the model its configuration gives here: it has no head.weight" in told(RunError)

    state = toy / "resume" / "step-00000002"
    whole = (state / "shared.pt").read_bytes()
    (state / "shared.pt").write_bytes(whole[:-1])
    said = told(RunError, state)
    assert f"the state {state} is damaged: shared.pt has {len(whole) - 1:,} bytes of {len(whole):,}" in said
    assert "no state under" in told(RunError)
    StateFolder(toy / "resume", ALONE).remove()
    assert "has saved no state yet" in told(UserError)


def test_a_run_of_newer_options_says_what_to_export_it_with(toy, tmp_path):
    states = StateFolder(toy / "resume", ALONE, made_by={"versions": {"pixelbert_fast": "99.0"}})
    found = states.read()
    changed = {**found.record, "config": {**found.record["config"], "new": 1}}
    for name in ("made_by", "files"):
        changed.pop(name)
    states.write(3, changed, found.shared, {})
    with pytest.raises(RunError, match=r"export with the version that wrote it, 99\.0"):
        export(toy, tmp_path / "out")
