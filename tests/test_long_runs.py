"""What happens to a run of days on its way: saves that fail, the best checkpoint, the samples it has seen."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess

import pytest
import torch

from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.training import checkpoint, provenance
from pixelbert_fast.training import run as runs
from pixelbert_fast.training.best import BestCheckpoint
from pixelbert_fast.training.checkpoint import StateFolder
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.evaluation import check_best
from pixelbert_fast.training.loop import Stopped
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.samples import SampleLog
from tests.training_task import ToyTask

ALONE = Ranks()
OFTEN = 1e-9


def trained(monkeypatch, folder, *, on_loss=None, evaluation=None, task=ToyTask, **training):
    options = {"steps": 6, "images_per_batch": 4, "log_every": 2, "prefetch": 0, **training}
    config = RunConfig(output=str(folder), training=options, evaluation=evaluation or {})
    made = task(config)
    made.on_loss = on_loss
    monkeypatch.setattr(runs, "_make_task", lambda *_: made)
    runs.run(config, ALONE, "plain")
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def full_disk(monkeypatch, steps):
    """Let the disk be full whenever the state after one of `steps` is written."""
    real = checkpoint.save_tensors

    def save(value, path):
        if any(path.parent.name.startswith(f"step-{step:08d}") for step in steps):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(value, path)

    monkeypatch.setattr(checkpoint, "save_tensors", save)


def steps_of(folder):
    return [int(path.name.removeprefix("step-")) for path in sorted((folder / "resume").iterdir())]


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_save_that_fails_on_the_way_is_told_and_the_run_goes_on_and_tries_again(
    monkeypatch, tmp_path, capsys
):
    straight = trained(monkeypatch, tmp_path / "straight")
    full_disk(monkeypatch, (2, 3))
    seen = []

    def look(call):
        if call in (4, 5):
            seen.append(steps_of(tmp_path / "run"))

    found = trained(monkeypatch, tmp_path / "run", on_loss=look, checkpoint_every_minutes=OFTEN)
    assert same(found, straight)
    # Before step 4 is made only that after step 1 is there, and then the one after step 4.
    assert seen == [[1], [1, 4]]
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [line.partition(": cannot")[0] for line in told] == ["warning: step 2", "warning: step 3"]
    assert all("No space left on device; training goes on and tries again after" in line for line in told)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "warning"] == [2, 3]


@pytest.mark.parametrize("stopped", [False, True])
def test_the_last_save_fails_loudly_and_the_one_before_is_used(monkeypatch, tmp_path, stopped, capsys):
    straight = trained(monkeypatch, tmp_path / "straight")
    last = 4 if stopped else 6

    def stop(call):
        if stopped and call == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as full:
        full_disk(full, (last,))
        with pytest.raises(RunError, match=r"cannot write the state .*: No space left on device$"):
            trained(full, tmp_path / "run", on_loss=stop, checkpoint_every_minutes=OFTEN)
    assert steps_of(tmp_path / "run") == [last - 2, last - 1]
    assert same(trained(monkeypatch, tmp_path / "run"), straight)
    assert f"going on after step {last - 1} of 6" in capsys.readouterr().out


def test_a_state_written_with_something_else_says_what(monkeypatch, tmp_path, capsys):
    def stop(call):
        if call == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    made = {"versions": {"torch": "1.0", "python": "3.11"}, "revision": "abc"}
    with monkeypatch.context() as before:
        before.setattr(runs, "made_by", lambda: made)
        with pytest.raises(Stopped):
            trained(before, tmp_path / "run", on_loss=stop)
    now = {"versions": {"torch": "2.0", "python": "3.11"}, "revision": "abc-dirty"}
    monkeypatch.setattr(runs, "made_by", lambda: now)
    trained(monkeypatch, tmp_path / "run")
    printed = capsys.readouterr().out
    assert "the state was written with torch 1.0, now 2.0\n" in printed
    assert "the state was written with revision abc, now abc-dirty\n" in printed
    assert "python" not in printed


def test_the_best_by_a_figure_is_kept_with_what_it_was(monkeypatch, tmp_path):
    figures = iter([0.5, 0.9, 0.7])

    class Measured(ToyTask):
        def evaluate(self, model, progress=None, limit=None):
            super().evaluate(model)
            return {"val": {"accuracy": next(figures)}}

        def save(self, model, directory):
            super().save(model, directory)
            (directory / "calls").write_text(str(self.calls))

    trained(
        monkeypatch,
        tmp_path / "run",
        task=Measured,
        evaluation={"every_epochs": 1, "best": "accuracy"},
        steps=18,
    )
    best = tmp_path / "run" / "best"
    assert json.loads((best / "best.json").read_text()) == {"metric": "accuracy", "value": 0.9, "step": 12}
    assert (best / "calls").read_text() == "12"
    assert (tmp_path / "run" / "checkpoint" / "calls").read_text() == "18"


def test_a_best_that_cannot_be_kept_is_told_and_the_one_before_stays(tmp_path, capsys):
    best = BestCheckpoint(tmp_path / "best", "accuracy")

    def save(into):
        (into / "weights").write_text("1")

    def fail(into):
        save(into)
        raise OSError(errno.ENOSPC, "No space left on device")

    assert best.consider(1, {"accuracy": 0.5}, save)
    assert not best.consider(2, {"accuracy": 0.6}, fail)
    assert "warning: step 2: no checkpoint is kept as the best by 'accuracy': " in capsys.readouterr().err
    assert json.loads((tmp_path / "best" / "best.json").read_text())["value"] == 0.5
    assert not best.consider(3, {"accuracy": 0.5}, save)
    assert not best.consider(3, {"accuracy": None}, save)
    assert not best.consider(3, {"accuracy": float("nan")}, save)
    # Another process of the same run, later.
    assert BestCheckpoint(tmp_path / "best", "accuracy").consider(4, {"accuracy": 0.7}, save)
    assert not capsys.readouterr().err
    BestCheckpoint(tmp_path / "best", "acuracy").consider(5, {"accuracy": 0.7}, save)
    assert "evaluation.best is none of the task's figures accuracy" in capsys.readouterr().err


def test_the_best_of_no_evaluations_is_a_mistake_told_at_once():
    with pytest.raises(ValueError, match=r"set evaluation\.every_epochs as well"):
        RunConfig(training={"steps": 1}, evaluation={"best": "accuracy"})


def test_a_best_of_no_figure_of_the_task_is_a_mistake_told_before_training():
    config = RunConfig(training={"steps": 1}, evaluation={"best": "acuracy", "every_epochs": 1})
    with pytest.raises(
        UserError, match=r"evaluation\.best is 'acuracy'; of the task pretrain it can be accur"
    ):
        check_best(ToyTask(config), config)


class Nameless(ToyTask):
    def batches(self, *arguments, **options):
        for batch in super().batches(*arguments, **options):
            yield {name: value for name, value in batch.items() if name != "sample_keys"}


def test_the_samples_of_each_step_are_those_of_a_run_that_was_not_killed(monkeypatch, tmp_path):
    options = {
        "accumulation": 2,
        "log_samples": True,
        "checkpoint_every_minutes": OFTEN,
    }
    trained(monkeypatch, tmp_path / "straight", **options)
    expected = (tmp_path / "straight" / "samples" / "rank-0.jsonl").read_text()
    lines = [json.loads(line) for line in expected.splitlines()]
    assert [line["step"] for line in lines] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    # ToyTask's: 1000 times the epoch, plus 10 times the number of the batch.
    assert [line["keys"] for line in lines] == [[1000 * (n // 6) + 10 * (n % 6)] for n in range(12)]

    class Killed(BaseException):
        pass

    def die(call):
        if call == 8:  # in the middle of step 4
            raise Killed

    with pytest.raises(Killed):
        trained(monkeypatch, tmp_path / "run", on_loss=die, **options)
    path = tmp_path / "run" / "samples" / "rank-0.jsonl"
    assert len(path.read_text().splitlines()) == 8
    with open(path, "a") as file:
        file.write('{"step": 4, "ke')  # as a process leaves it that is killed while it writes
    trained(monkeypatch, tmp_path / "run", **options)
    assert path.read_text() == expected


def test_lines_of_processes_that_are_no_more_are_dropped_as_well(tmp_path):
    for rank in range(2):
        (tmp_path / f"rank-{rank}.jsonl").write_text('{"step": 1, "keys": [1]}\n{"step": 2, "keys": [2]}\n')
    SampleLog(None, tmp_path, ALONE, step=1, accumulation=1).close()
    for rank in range(2):
        assert (tmp_path / f"rank-{rank}.jsonl").read_text() == '{"step": 1, "keys": [1]}\n'


def test_a_task_that_names_no_samples_cannot_log_them(monkeypatch, tmp_path):
    said = r"the task toy does not name its samples; set training\.log_samples=false"
    with pytest.raises(UserError, match=said):
        trained(monkeypatch, tmp_path / "run", task=Nameless, log_samples=True)


def test_a_run_made_before_an_option_was_there_goes_on(monkeypatch, tmp_path):
    def stop(call):
        if call == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        trained(monkeypatch, tmp_path / "run", on_loss=stop)
    file = tmp_path / "run" / "run.json"
    record = json.loads(file.read_text())
    del record["config"]["training"]["accumulation"]
    file.write_text(json.dumps(record))
    trained(monkeypatch, tmp_path / "run")
    with pytest.raises(UserError, match=r"training\.accumulation = 1, and now it is 2"):
        trained(monkeypatch, tmp_path / "run", accumulation=2)


def test_the_revision_is_that_of_the_packages_own_checkout(tmp_path):
    def git(*arguments):
        name = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *name, *arguments], check=True, capture_output=True)

    try:
        git("init")
    except FileNotFoundError:
        pytest.skip("there is no git")
    inside = tmp_path / "site-packages"
    inside.mkdir()
    (tmp_path / "file").write_text("one")
    assert provenance.revision(tmp_path) is None  # no commit yet
    git("add", "file")
    git("commit", "-m", "one")
    (tmp_path / "other").touch()
    commit = provenance.revision(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("two")
    assert provenance.revision(tmp_path) == f"{commit}-dirty"
    # Installed inside somebody's checkout, the package is not of it.
    assert provenance.revision(inside) is None


def test_a_state_says_what_made_it(monkeypatch, tmp_path):
    def stop(call):
        if call == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        trained(monkeypatch, tmp_path / "run", on_loss=stop)
    record = StateFolder(tmp_path / "run" / "resume", ALONE).read().record
    assert record["made_by"] == provenance.made_by()
    assert record["made_by"]["versions"]["torch"] == torch.__version__
    assert record["config"]["training"]["steps"] == 6
    assert record["position"]["step"] == 2
