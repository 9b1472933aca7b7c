"""Resuming: bit for bit, from whole states only, and never from a damaged or foreign one."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch

from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.training import run as runs
from pixelbert_fast.training.checkpoint import (
    StateFolder,
    random_state,
    seed_all,
    set_random_state,
    undisturbed_random,
)
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.loop import Stopped
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.resuming import position_of
from tests.training_task import ToyTask

ALONE = Ranks()


def configuration(folder, **training):
    options = {"steps": 6, "images_per_batch": 4, "log_every": 2, "prefetch": 0, **training}
    return RunConfig(output=str(folder), training=options, schedule={"kind": "cosine", "warmup_steps": 2})


def trained(monkeypatch, config, *, on_loss=None, bad_step=None, resume="auto"):
    """Run the toy task; returns the result and the parameters and buffers it ended with."""
    task = ToyTask(config, bad_step=bad_step)
    task.on_loss = on_loss
    monkeypatch.setattr(runs, "_make_task", lambda *_: task)
    result = runs.run(config, ALONE, "plain", resume=resume)
    return result, {name: value.clone() for name, value in task.model.state_dict().items()}


def at_call(number, deed):
    return lambda call: deed() if call == number else None


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def straight(monkeypatch, tmp_path):
    """What six steps without interruption end with."""
    return trained(monkeypatch, configuration(tmp_path / "straight"))[1]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGUSR1, 0), (signal.SIGINT, 130)]
)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_stopped_after_three_steps_and_resumed_equals_six_straight(
    monkeypatch, tmp_path, straight, number, status, prefetch
):
    config = configuration(tmp_path / "run", prefetch=prefetch)
    with pytest.raises(Stopped, match="after step 3") as stopped:
        trained(monkeypatch, config, on_loss=at_call(3, lambda: os.kill(os.getpid(), number)))
    assert stopped.value.status == status
    assert not (tmp_path / "run" / "metrics.json").exists()
    torch.rand(5)  # whatever happens in between
    result, resumed = trained(monkeypatch, config)
    assert result.metrics["steps"] == 6
    assert same(resumed, straight)


def test_told_to_stop_in_the_last_step_it_leaves_the_evaluation_to_the_next_sitting(
    monkeypatch, tmp_path, straight
):
    config = configuration(tmp_path / "run")
    with pytest.raises(Stopped, match="after step 6"):
        trained(monkeypatch, config, on_loss=at_call(6, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert not (tmp_path / "run" / "metrics.json").exists()
    result, resumed = trained(monkeypatch, config)
    assert result.metrics["steps"] == 6
    assert same(resumed, straight)


def test_killed_between_saves_and_resumed_equals_six_straight(monkeypatch, tmp_path, straight):
    config = configuration(tmp_path / "run", checkpoint_every_minutes=1e-9)

    class Killed(BaseException):
        pass

    def die():
        raise Killed

    with pytest.raises(Killed):
        trained(monkeypatch, config, on_loss=at_call(5, die))
    result, resumed = trained(monkeypatch, config)
    assert same(resumed, straight)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [2, 4, 6]
    assert result.metrics["pairs"] == 24


def test_accumulation_is_resumed_in_the_middle_of_an_epoch(monkeypatch, tmp_path):
    straight = trained(monkeypatch, configuration(tmp_path / "straight", accumulation=4))[1]
    config = configuration(tmp_path / "run", accumulation=4)
    with pytest.raises(Stopped, match="after step 2"):
        trained(monkeypatch, config, on_loss=at_call(7, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert same(trained(monkeypatch, config)[1], straight)


def stopped_twice(monkeypatch, folder):
    """A run with two states on disk, after steps 2 and 4."""
    for call in (2, 2):
        deed = at_call(call, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            trained(monkeypatch, configuration(folder), on_loss=deed)
    states = sorted(path.name for path in (folder / "resume").iterdir())
    assert states == ["step-00000002", "step-00000004"]
    return [folder / "resume" / name for name in states]


@pytest.mark.parametrize("file", ["shared.pt", "rank-0.pt", "state.json"])
def test_a_cut_state_gives_way_to_the_older_one(monkeypatch, tmp_path, straight, file, capsys):
    _, newest = stopped_twice(monkeypatch, tmp_path / "run")
    whole = (newest / file).read_bytes()
    (newest / file).write_bytes(whole[: len(whole) // 2])
    assert same(trained(monkeypatch, configuration(tmp_path / "run"))[1], straight)
    printed = capsys.readouterr().out
    assert "step-00000004 is damaged and passed over" in printed
    assert "going on after step 2 of 6" in printed


# Zeros end the pickle reader in an EOFError or a RuntimeError, letters in an UnpicklingError.
@pytest.mark.parametrize("byte", [b"\0", b"x"])
def test_garbage_of_the_right_size_gives_way_too(monkeypatch, tmp_path, straight, byte):
    _, newest = stopped_twice(monkeypatch, tmp_path / "run")
    size = (newest / "shared.pt").stat().st_size
    (newest / "shared.pt").write_bytes(byte * size)
    assert same(trained(monkeypatch, configuration(tmp_path / "run"))[1], straight)


def test_when_none_can_be_read_one_sentence_says_so(monkeypatch, tmp_path):
    for state in stopped_twice(monkeypatch, tmp_path / "run"):
        (state / "shared.pt").write_bytes(b"")
    with pytest.raises(RunError, match=r"no state under .* can be read; --resume never"):
        trained(monkeypatch, configuration(tmp_path / "run"))


def test_a_half_written_state_is_not_seen(tmp_path):
    states = StateFolder(tmp_path, ALONE)
    states.write(3, {"position": {}}, {"model": {}}, {})
    (tmp_path / "step-00000009.partial").mkdir()
    record, shared, mine = states.read()
    assert (record["step"], shared, mine["own"]) == (3, {"model": {}}, {})


def test_the_two_newest_states_are_kept(tmp_path):
    states = StateFolder(tmp_path, ALONE)
    for step in (1, 2, 3):
        states.write(step, {}, {"step": step}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    assert states.read()[1] == {"step": 3}


def test_a_state_that_cannot_be_written_is_a_failure_in_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write the state to resume from"):
        StateFolder(tmp_path / "file", ALONE).write(1, {}, {}, {})


def test_another_number_of_processes_leaves_the_same_images_to_see():
    record = {"position": {"step": 4, "epoch": 1, "batch": 6, "seconds": 1.0, "pairs": 8}, "world": 2}
    same = position_of(record, Ranks(world=2))
    assert (same.start, same.batch) == (0, 6)
    for world in (1, 3, 4):
        other = position_of(record, Ranks(world=world))
        assert (other.start, other.batch, other.shown(world)) == (12, 0, 12)
    again = {"position": {**record["position"], "start": 12, "batch": 2}, "world": 3}
    assert position_of(again, Ranks(world=2)).start == 18
    assert position_of(again, Ranks(world=3)).shown(3) == 18


def test_random_state_covers_every_generator_and_is_readable_without_pickle(tmp_path):
    import random

    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_all(5)
    np.random.randn()  # leaves a second number waiting, which is part of the state
    torch.save(random_state(), tmp_path / "state.pt")
    first = draw()
    with undisturbed_random():
        seed_all(6)
        assert draw() != first
    second = draw()
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (draw(), draw()) == (first, second)


@pytest.mark.parametrize(("log_every", "accumulation", "call", "step"), [(4, 1, 2, 2), (3, 2, 8, 4)])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_step(
    monkeypatch, tmp_path, log_every, accumulation, call, step
):
    config = configuration(tmp_path / "run", log_every=log_every, accumulation=accumulation, skip_nonfinite=0)
    with pytest.raises(RunError, match=f"not finite at step {step};"):
        trained(monkeypatch, config, bad_step=call)


def test_a_state_is_never_saved_after_a_loss_that_is_not_finite(monkeypatch, tmp_path):
    config = configuration(tmp_path / "run", log_every=100, checkpoint_every_minutes=1e-9, skip_nonfinite=0)
    with pytest.raises(RunError, match="not finite at step 3"):
        trained(monkeypatch, config, bad_step=3)
    assert StateFolder(tmp_path / "run" / "resume", ALONE).read()[0]["step"] == 2


def test_a_finished_run_is_shown_again_and_replaced_only_when_told(monkeypatch, tmp_path):
    config = configuration(tmp_path / "run")
    first, _ = trained(monkeypatch, config)
    assert not first.before
    monkeypatch.setattr(runs, "_make_task", None)  # nothing may be built
    again = runs.run(config, ALONE, "plain")
    assert again.before
    assert again.metrics == first.metrics
    (tmp_path / "run" / "checkpoint" / "old").touch()
    (tmp_path / "run" / "notes.txt").touch()
    third, _ = trained(monkeypatch, config, resume="never")
    assert not third.before
    assert not (tmp_path / "run" / "checkpoint" / "old").exists()
    assert (tmp_path / "run" / "notes.txt").exists()


def test_another_configurations_run_is_not_touched(monkeypatch, tmp_path):
    trained(monkeypatch, configuration(tmp_path / "run"))
    with pytest.raises(UserError, match=r"training.steps = 6, and now it is 7; choose another output=FOLDER"):
        runs.run(configuration(tmp_path / "run", steps=7), ALONE, "plain")
    # These change nothing that is computed.
    assert runs.run(configuration(tmp_path / "run", log_every=3, threads=1), ALONE, "plain").before


@pytest.mark.parametrize(
    ("part", "kind", "into", "given"),
    [
        ("backbone", "objects", "backbone", "checkpoint/backbone.safetensors"),
        ("checkpoint", "pretrain", "start", "checkpoint"),
    ],
)
def test_a_recipe_to_start_from_is_trained_first_and_once(
    monkeypatch, tmp_path, capsys, part, kind, into, given
):
    recipe = tmp_path / "earlier.yaml"
    recipe.write_text(f"task: {kind}\ntraining: {{steps: 3, prefetch: 0}}")
    config = configuration(tmp_path / "run")
    start = config.start.model_copy(update={f"{part}_recipe": str(recipe), "text_only": True})
    objectives = config.objectives.model_copy(update={"itm": False})
    config = config.model_copy(update={"start": start, "objectives": objectives})
    made, words, learns = [], [], []

    def make(built, device):
        made.append((built.task, getattr(built.start, part), built.output))
        words.append(built.tokenizer.texts)
        learns.append((built.objectives.mlm, built.objectives.itm, built.start.text_only))
        task = ToyTask(built)
        if len(made) == 2:
            task.on_loss = at_call(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        return task

    monkeypatch.setattr(runs, "_make_task", make)
    with pytest.raises(Stopped):
        runs.run(config, ALONE, "plain")
    result = runs.run(config, ALONE, "plain")
    folder = tmp_path / "run" / into
    main = ("pretrain", str(folder / given), str(tmp_path / "run"))
    assert made == [(kind, None, str(folder)), main, main]
    # An earlier checkpoint must know this run's words; a backbone has none.
    assert words == [config.data.directory if part == "checkpoint" else None, None, None]
    # Nor may it have learnt from what this run leaves out.
    own = (True, False, True)
    assert learns == [own if part == "checkpoint" else (True, True, False), own, own]
    # What is written is what was asked for, so that the same command finds the same run again.
    assert result.metrics["config"]["start"] == config.start.model_dump()
    assert result.metrics["start_seconds"] > 0
    printed = capsys.readouterr().out
    assert (printed.count("comes first"), printed.count("is trained already")) == (1, 1)


def test_a_run_that_ended_before_training_gives_way_to_its_corrected_configuration(monkeypatch, tmp_path):
    def refuse(config, device):
        raise UserError("there is no data set at datta")

    monkeypatch.setattr(runs, "_make_task", refuse)
    with pytest.raises(UserError, match="datta"):
        runs.run(configuration(tmp_path / "run", steps=7), ALONE, "plain")
    assert trained(monkeypatch, configuration(tmp_path / "run"))[0].metrics["steps"] == 6


def test_an_output_that_cannot_be_written_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    # A folder below a file can be written by nobody, whoever runs the tests.
    with pytest.raises(UserError, match=r"file/run cannot be written \(.*\); choose another output=FOLDER"):
        runs.run(configuration(tmp_path / "file" / "run"), ALONE, "plain")


def test_a_folder_with_something_else_in_it_is_not_touched(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(UserError, match="'checkpoint' in it that no run here made"):
        runs.run(configuration(tmp_path), ALONE, "plain")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        runs.run(configuration(tmp_path / "file"), ALONE, "plain")


def test_a_state_of_another_model_is_refused_in_a_sentence(monkeypatch, tmp_path):
    stopped_twice(monkeypatch, tmp_path / "run")

    def other(config, device):
        task = ToyTask(config)
        task.model.head = torch.nn.Linear(8, 5)
        return task

    monkeypatch.setattr(runs, "_make_task", other)
    with pytest.raises(RunError, match="does not fit this model") as caught:
        runs.run(configuration(tmp_path / "run"), ALONE, "plain")
    assert "\n" not in str(caught.value)
