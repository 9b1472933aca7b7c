"""Runs that are killed or told to stop from outside; `make kill-test` is the long version of this."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pixelbert_fast.training.checkpoint import read_state
from pixelbert_fast.training.ranks import Ranks
from tests.killing import Command, killed_run, last_step, until, workers_of
from tests.test_engine import left_in_shared_memory, shared_memory

TOY = Path(__file__).resolve().parent / "training_task.py"
RECIPE = """
training:
  {steps: 60, images_per_batch: 4, prefetch: 0, checkpoint_every_minutes: 1e-9, log_samples: true}
evaluation: {splits: [val]}
"""


@pytest.fixture
def command(tmp_path):
    """Makes the command that trains the toy, slowly, into a folder."""
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(RECIPE)

    def make(out, *more, processes=1):
        arguments = ("--config", str(recipe), f"output={out}", "--resume", "auto", *more)
        return Command(TOY, *arguments, processes=processes, TOY_DEED="slow")

    return make


def test_killed_at_random_moments_it_is_bit_for_bit_the_run_nobody_killed(tmp_path, command):
    # Far enough from the end that the run is still there when the kill comes.
    outcome = killed_run("toy", command, tmp_path / "runs", steps=25, kills=2, seed=1)
    assert len(outcome.moments) == 2
    assert outcome.other_tensors == []
    assert outcome.other_steps == []
    assert outcome.steps == 60
    assert outcome.tensors == 9
    log = (tmp_path / "runs" / "log.txt").read_text()
    assert log.count("going on after step") == 2


def test_a_sigterm_to_one_of_two_processes_stops_both_with_a_state_and_status_0(tmp_path, command):
    before = shared_memory()
    out, log = tmp_path / "run", tmp_path / "log.txt"
    launcher = command(out, processes=2).start(log)
    until(lambda: last_step(out) >= 3, launcher, log)
    workers = workers_of(launcher, "training_task.py")
    assert len(workers) == 2
    workers[1].terminate()
    assert launcher.wait(timeout=120) == 0, log.read_text()[-2000:]
    state = max((out / "resume").iterdir())
    step = int(state.name.removeprefix("step-"))
    assert f"stopped after step {step}; the same command goes on from there" in log.read_text()
    assert not (out / "metrics.json").exists()
    for rank in range(2):
        assert read_state(state, Ranks(rank=rank, world=2)).mine["random"]
    record = json.loads((state / "state.json").read_text())
    assert (record["world"], sorted(record["files"])) == (2, ["rank-0.pt", "rank-1.pt", "shared.pt"])
    # Both stopped after the same step.
    lines = [(out / "samples" / f"rank-{rank}.jsonl").read_text().splitlines() for rank in range(2)]
    assert len(lines[0]) == len(lines[1]) == step
    assert not left_in_shared_memory(before)
