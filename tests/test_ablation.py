"""A small ablation end to end: killed, gone on with, repeated by hand, shared by two processes, refused."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pixelbert_fast import cli
from pixelbert_fast.commands import ablate
from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.training.ablation import records, table, work
from pixelbert_fast.training.ablation.plan import Plan
from pixelbert_fast.training.ablation.recipe import load_ablation

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300.0

# A state is saved after every step, so that one is there to go on from whenever the kill comes.
ABLATION = """
title: Small
output: {out}
seeds: [3]
every:
  data: {{directory: {data}, build: null, max_text_length: 24, short_side: 48, long_side: 48}}
  training: {{epochs: null, threads: 1, log_every: 5, checkpoint_every_minutes: 1e-9, images_per_batch: 4}}
  model: {{overrides: {{hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, backbone_channels: 8}}}}
  start: {{checkpoint_recipe: null}}
stages:
  words: {{recipe: scenes_long, once: true, change: {{start.text_only: true, training.steps: 2}}}}
  pretrain: {{recipe: scenes_long, start: {{start.checkpoint: words}}, change: {{training.steps: 40}}}}
  nlvr2: {{recipe: nlvr2_scenes, start: {{start.checkpoint: pretrain}}, change: {{training.steps: 3}}}}
rows:
  - {{name: none, label: no pre-training, leave_out: [pretrain]}}
  - name: both
    change: {{pretrain: {{model: {{overrides: {{sampled_pixels: null}}}}}}}}
    paper: {{nlvr2: 71.7}}
figures:
  nlvr2: {{stage: nlvr2, path: metrics.val.accuracy, chance: 50}}
readings:
  - {{says: pre-training helps, claims: [{{better: both, than: none, of: [nlvr2]}}]}}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("scenes") / "set"
    build_set(make_builder("scenes", images=60, seed=1, size=48), directory, workers=1)
    return directory


@pytest.fixture(scope="module")
def recipe(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    file = folder / "small.yaml"
    file.write_text(ABLATION.format(out=folder / "out", data=scenes))
    return file


@pytest.fixture(scope="module")
def killed(recipe):
    """Killed while it pre-trains; its folder, and what it had finished by then with the time of that."""
    out = recipe.parent / "out"
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    line = [sys.executable, "-m", "pixelbert_fast.cli", "ablate", "--config", str(recipe)]
    with open(recipe.parent / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(line, env=variables, stdout=log, stderr=log, cwd=ROOT)
    until, states = time.monotonic() + PATIENCE, out / "both" / "seed-3" / "pretrain" / "resume"
    while not list(states.glob("step-*[0-9]")):
        assert process.poll() is None, (recipe.parent / "log").read_text()[-2000:]
        assert time.monotonic() < until
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")}
    return out, finished


@pytest.fixture(scope="module")
def done(killed, recipe):
    """The same command again."""
    out, finished = killed
    assert cli.main(["ablate", "--config", str(recipe)]) == 0
    return out, finished


def run_record(out, name):
    return json.loads((out / name / "metrics.json").read_text())


def test_after_a_kill_it_goes_on_and_repeats_nothing(done):
    out, finished = done
    names = {str(path.parent.relative_to(out)) for path in finished}
    assert names == {"shared/words", "none/seed-3/nlvr2"}
    for path, when in finished.items():
        assert path.stat().st_mtime_ns == when
    assert run_record(out, "both/seed-3/pretrain")["steps"] == 40
    start = run_record(out, "both/seed-3/nlvr2")["config"]["start"]["checkpoint"]
    assert start == str(out / "both/seed-3/pretrain/checkpoint")
    assert run_record(out, "none/seed-3/nlvr2")["config"]["start"]["checkpoint"] == str(
        out / "shared/words/checkpoint"
    )


def test_each_run_can_be_repeated_by_hand(done, tmp_path):
    """By the recipe in its folder, without a kill: the same weights."""
    out, _ = done
    file = out / "both" / "seed-3" / "pretrain" / "recipe.yaml"
    assert cli.main(["train", "--config", str(file), f"output={tmp_path / 'again'}"]) == 0
    here, there = (
        load_file(folder / "checkpoint" / "model.safetensors") for folder in (file.parent, tmp_path / "again")
    )
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_the_table_is_of_the_runs(done):
    out, _ = done
    told = json.loads((out / "ablation.json").read_text())
    for row in told["rows"]:
        accuracy = run_record(out, f"{row['name']}/seed-3/nlvr2")["metrics"]["val"]["accuracy"]
        assert row["figures"]["nlvr2"]["by_seed"] == {"3": pytest.approx(100 * accuracy)}
    assert told["readings"][0]["verdict"] == "cannot be told"
    text = (out / "ablation.md").read_text()
    assert f"{told['rows'][1]['figures']['nlvr2']['mean']:.1f} (71.7)" in text
    assert "one seed shows no spread" in text
    assert (out / "ablation.svg").read_text().startswith("<svg")


def test_a_finished_one_is_shown_again(done, recipe, capsys, monkeypatch):
    monkeypatch.setattr(work, "run", lambda *_, **__: pytest.fail("trained again"))
    capsys.readouterr()
    assert cli.main(["ablate", "--config", str(recipe)]) == 0
    assert "pre-training helps: **cannot be told**" in capsys.readouterr().out


def test_another_configuration_is_refused_and_more_rows_and_seeds_are_not(done, recipe, capsys):
    out, _ = done
    changed = "stages.pretrain.change.training.steps=41"
    assert cli.main(["ablate", "--config", str(recipe), changed]) == 2
    told = capsys.readouterr().err
    assert f"{out}/both/seed-3/pretrain holds a run with training.steps = 40, and now it is 41" in told
    # What a run starts from is a part of what it is.
    assert cli.main(["ablate", "--config", str(recipe), "stages.words.change.training.steps=3"]) == 2
    assert f"{out}/shared/words holds a run" in capsys.readouterr().err
    assert cli.main(["ablate", "--config", str(recipe), "seeds=[3, 4]", "--dry-run"]) == 0
    assert "to do: 3 runs, 46 steps" in capsys.readouterr().out
    threads = ["every.training.threads=2", "--dry-run"]
    assert cli.main(["ablate", "--config", str(recipe), *threads]) == 0
    assert "to do: 0 runs" in capsys.readouterr().out


def test_a_run_that_no_ablation_made_is_not_taken_for_one(done, recipe, tmp_path, capsys):
    folder = tmp_path / "shared" / "words"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    assert cli.main(["ablate", "--config", str(recipe), f"output={tmp_path}"]) == 2
    assert "holds a run that no ablation made" in capsys.readouterr().err
    assert cli.main(["ablate", "--config", str(recipe), f"output={folder / 'metrics.json'}"]) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.fixture
def untrained(recipe, tmp_path, monkeypatch):
    """The plan of a new folder, and the names of what was trained there, which takes no time."""
    plan, trained = Plan(load_ablation(recipe, [f"output={tmp_path / 'new'}"])), []

    def train(config, ranks, engine, **_):
        folder = Path(config.output)
        trained.append(str(folder.relative_to(tmp_path / "new")))
        (folder / "metrics.json").write_text('{"total_seconds": 2.0, "training_seconds": 1.5, "steps": 40}')

    monkeypatch.setattr(work, "run", train)
    return plan, trained


def test_what_another_process_works_on_is_left_to_it(untrained, monkeypatch):
    plan, trained = untrained
    by_name = {run.name: run for run in plan.runs}
    locks = Path(plan.config.output) / "locks"
    locks.mkdir(parents=True)
    other = work._locked(locks / "both.seed-3.pretrain.lock")
    waits = []

    def wait(seconds):
        waits.append(list(trained))
        records.write_record(by_name["both/seed-3/pretrain"])
        folder = by_name["both/seed-3/pretrain"].folder
        folder.metrics_file.write_text('{"total_seconds": 2.0, "training_seconds": 1.5, "steps": 40}')
        other.close()

    monkeypatch.setattr(work.time, "sleep", wait)
    work.train(plan.runs, plan.config.output, lambda run: None)
    # All that does not start from it came first.
    assert waits == [["shared/words", "none/seed-3/nlvr2"]]
    assert trained == ["shared/words", "none/seed-3/nlvr2", "both/seed-3/nlvr2"]


def test_what_does_not_start_from_a_failed_run_is_trained(untrained, monkeypatch, capsys):
    plan, trained = untrained
    before, broken = work.run, ["none/seed-3/nlvr2", "both/seed-3/pretrain"]

    def fail(config, *rest, **named):
        if any(config.output.endswith(name) for name in broken):
            raise RunError("the loss is not finite")
        before(config, *rest, **named)

    monkeypatch.setattr(work, "run", fail)
    named = r"^none/seed-3/nlvr2: the loss is not finite; 1 more failed$"
    with pytest.raises(RunError, match=named):
        work.train(plan.runs, plan.config.output, lambda run: None)
    assert trained == ["shared/words"]
    said = capsys.readouterr().err
    assert "both/seed-3/pretrain: the loss is not finite; going on with what does not start from it" in said
    # Gone on with, and one of them fails again.
    broken.remove("both/seed-3/pretrain")
    with pytest.raises(RunError, match=r"^none/seed-3/nlvr2: the loss is not finite$"):
        work.train(plan.runs, plan.config.output, lambda run: None)
    assert trained == ["shared/words", "both/seed-3/pretrain", "both/seed-3/nlvr2"]


def test_a_table_that_cannot_be_written_ends_it(untrained):
    plan, trained = untrained

    def full(run):
        raise RunError("ablation.md cannot be written")

    with pytest.raises(RunError, match=r"^ablation\.md cannot be written$"):
        work.train(plan.runs, plan.config.output, full)
    assert trained == ["shared/words"]


def test_one_bar_shows_all_runs(untrained, capsys):
    plan, _ = untrained
    work.train(plan.runs, plan.config.output, lambda run: None)
    shown = capsys.readouterr().err
    assert "ablation: 48/48 steps" in shown
    assert "training" not in shown


def test_a_run_has_a_report_where_asked_for_alone(recipe, tmp_path, capsys, monkeypatch):
    """By the command, trained in truth: the only run that all rows start from."""
    reported = []
    monkeypatch.setattr(
        "pixelbert_fast.commands.report.report_run", lambda folder, **_: reported.append(folder)
    )
    line = ["ablate", "--config", str(recipe), "--only", "stage=words"]
    assert cli.main([*line, f"output={tmp_path / 'without'}"]) == 0
    assert not reported
    assert cli.main([*line, f"output={tmp_path / 'with'}", "every.training.report=true"]) == 0
    assert set(reported) == {tmp_path / "with" / "shared" / "words"}


def test_what_another_process_made_by_another_configuration_is_not_taken(untrained, recipe, monkeypatch):
    """It began when neither had trained, so that neither was in the other's way."""
    plan, trained = untrained
    changed = "stages.pretrain.change.training.steps=41"
    other = Plan(load_ablation(recipe, [f"output={plan.config.output}", changed]))
    work.check(other)
    work.check(plan)
    theirs = {run.name: run for run in other.runs}["both/seed-3/pretrain"]
    before = work.run

    def train(config, *rest, **named):
        before(config, *rest, **named)
        if "none" in config.output:
            records.write_record(theirs)
            theirs.folder.metrics_file.write_text('{"total_seconds": 2.0, "steps": 41}')

    monkeypatch.setattr(work, "run", train)
    with pytest.raises(UserError, match=r"pretrain holds a run with training\.steps = 41, and now it is 40"):
        work.train(plan.runs, plan.config.output, lambda run: None)
    assert trained == ["shared/words", "none/seed-3/nlvr2"]


def test_another_data_set_in_the_same_directory_is_refused(scenes, recipe, tmp_path, monkeypatch):
    data = tmp_path / "set"
    data.mkdir()
    (data / "card.json").write_bytes((scenes / "card.json").read_bytes())
    plan = Plan(load_ablation(recipe, [f"output={tmp_path / 'out'}", f"every.data.directory={data}"]))
    run = plan.runs[0]
    records.write_record(run)
    run.folder.metrics_file.write_text("{}")
    work.check(plan)
    (data / "card.json").write_text("{}")
    with pytest.raises(UserError, match=f"words holds a run of another data set than {data} is now"):
        work.check(plan)
    # A set that was removed when everything was finished is in nobody's way.
    (data / "card.json").unlink()
    work.check(plan)


def test_a_full_disk_is_a_sentence_that_names_the_run(untrained, monkeypatch, capsys):
    plan, _ = untrained

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(work, "run", full)
    said = r"^shared/words: No space left on device; put that right, the same command goes on$"
    with pytest.raises(RunError, match=said):
        work.train(plan.runs, plan.config.output, lambda run: None)
    monkeypatch.setattr("pixelbert_fast.tasks.whole_file.os.replace", full)
    with pytest.raises(RunError, match=r"ablation\.md cannot be written \(No space left on device\)"):
        ablate.write(plan)
    assert not list(Path(plan.config.output).glob("*.partial"))


def test_what_runs_took_and_their_revisions_are_found(untrained):
    plan, _ = untrained
    assert records.spent(plan.runs) == {"runs": 0, "steps": 0, "training_seconds": 0}
    work.train(plan.runs, plan.config.output, lambda run: None)
    assert records.spent(plan.runs) == {"runs": 4, "steps": 160, "training_seconds": 6.0}
    for run, revision in zip(plan.runs, ("a", "b", "a", "a"), strict=True):
        record = {"versions": {"torch": "2"}, "revision": revision}
        (run.folder.path / "run.json").write_text(json.dumps(record))
    found = records.runs_made_by(plan.runs)
    assert [(one["revision"], one["runs"]) for one in found] == [("a", 3), ("b", 1)]
    values = {row.name: {"nlvr2": {}} for row in plan.config.rows}
    text = table.markdown(plan.config, values, found)
    assert "**The runs are not of one version**: 3 are alike, 1 with revision a -> b." in text
    assert "not of one version" not in table.markdown(plan.config, values, found[:1])


def test_a_file_system_without_locks_is_not_waited_for(untrained, monkeypatch):
    plan, _ = untrained

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(work.fcntl, "flock", refuse)
    monkeypatch.setattr(work.time, "sleep", lambda seconds: pytest.fail("waits for nobody"))
    with pytest.raises(
        UserError, match=r"words\.lock cannot be locked \(No locks available\); choose an output"
    ):
        work.train(plan.runs, plan.config.output, lambda run: None)
