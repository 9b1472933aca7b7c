"""When training has its report written, and that nothing of it can harm a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pixelbert_fast.commands.report import report_run
from pixelbert_fast.training import run as runs
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.recipes import load_config
from tests.training_task import ToyTask

RECIPE = """
training: {steps: 12, images_per_batch: 4, log_every: 2, prefetch: 0, checkpoint_every_minutes: 1e-9}
evaluation: {splits: [val], every_epochs: 1}
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """(configuration with overrides, the task's hook) -> the run's result."""
    (tmp_path / "toy.yaml").write_text(RECIPE)

    def run(*overrides: str, reporter=None, on_loss=None, **options):
        config = load_config(tmp_path / "toy.yaml", [f"output={tmp_path / 'run'}", *overrides])

        def make(*_):
            task = ToyTask(config)
            task.on_loss = on_loss
            return task

        monkeypatch.setattr(runs, "_make_task", make)
        return runs.run(config, Ranks(), "plain", reporter=reporter, **options)

    return run


class Told:
    """A reporter that remembers, and raises what it is given."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[tuple[str, bool, bool]] = []
        self.error = error

    def __call__(self, folder: Path, *, examples: bool) -> None:
        self.calls.append((folder.name, examples, (folder / "metrics.json").is_file()))
        if self.error is not None:
            raise self.error


def test_it_is_asked_for_at_evaluations_and_at_the_end(toy) -> None:
    told = Told()
    toy(reporter=told)
    # Twelve steps are two epochs.
    assert told.calls == [("run", False, False), ("run", True, True)]


def test_a_finished_run_shown_again_gets_one_only_where_it_has_none(toy, tmp_path: Path) -> None:
    toy()
    told = Told()
    toy(reporter=told)
    assert told.calls == [("run", True, True)]
    (tmp_path / "run" / "report.html").write_text("there")
    toy(reporter=told)
    assert len(told.calls) == 1


def test_it_can_be_switched_off(toy) -> None:
    told = Told()
    toy("training.report=false", reporter=told)
    assert told.calls == []


def test_a_run_that_fails_has_one_without_examples(toy) -> None:
    def broken(call: int) -> None:
        if call == 5:
            raise ValueError("the toy broke")

    told = Told()
    with pytest.raises(ValueError, match="the toy broke"):
        toy(reporter=told, on_loss=broken)
    assert told.calls == [("run", False, False)]


def test_a_run_that_is_quit_at_once_waits_for_none(toy) -> None:
    def quit_at_once(call: int) -> None:
        if call == 5:
            raise KeyboardInterrupt

    told = Told()
    with pytest.raises(KeyboardInterrupt):
        toy(reporter=told, on_loss=quit_at_once)
    assert told.calls == []


@pytest.mark.parametrize("error", [ValueError("no\nreport"), OSError(28, "No space left"), MemoryError()])
def test_a_report_that_fails_is_one_sentence(toy, error, capsys: pytest.CaptureFixture) -> None:
    result = toy("evaluation.every_epochs=0", reporter=Told(error))
    assert result.metrics["steps"] == 12
    said = [line for line in capsys.readouterr().err.splitlines() if "report" in line]
    assert len(said) == 1 and said[0].startswith("warning: the report of ")
    assert (str(error).replace("\n", " ") or "MemoryError") in said[0]


def test_ctrl_c_ends_the_report_and_not_the_run(toy, capsys: pytest.CaptureFixture) -> None:
    result = toy("evaluation.every_epochs=0", reporter=Told(KeyboardInterrupt()))
    assert result.metrics["steps"] == 12
    assert "the report was stopped; `pixelbert report" in capsys.readouterr().err


def test_a_report_changes_nothing_that_is_computed(toy, tmp_path: Path) -> None:
    with_report = toy(reporter=report_run).metrics
    assert (tmp_path / "run" / "report.html").is_file()
    without = toy(f"output={tmp_path / 'other'}").metrics
    assert with_report["accuracy"] == without["accuracy"]
    ours, theirs = (
        [
            json.loads(line)["loss"]
            for line in (tmp_path / name / "log.jsonl").read_text().splitlines()
            if '"loss"' in line
        ]
        for name in ("run", "other")
    )
    assert ours == theirs


def test_the_page_of_a_killed_and_resumed_run_has_one_curve(toy, tmp_path: Path) -> None:
    def broken(call: int) -> None:
        if call == 9:
            raise ValueError("killed")

    with pytest.raises(ValueError, match="killed"):
        toy(reporter=report_run, on_loss=broken)
    page = tmp_path / "run" / "report.html"
    assert "NOT FINISHED. This run has reached step 8 of 12 steps" in page.read_text(encoding="utf-8")
    toy(reporter=report_run)
    after = page.read_text(encoding="utf-8")
    assert "NOT FINISHED" not in after and "Finished: 12 steps" in after
    loss = after.split("<figcaption>Loss")[1].split("</figure>")[0]
    line = loss.split('data-name="all"')[1].split(' d="')[1].split('"')[0]
    assert line.count("M") == 1 and line.count("L") == 5  # steps 2, 4, ... 12, each once
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    for said in (about["machine"]["system"], about["versions"]["torch"]):
        assert f"<td>{said}</td>" in after
