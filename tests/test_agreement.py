"""Processes that were told different things, or do not share their output, end before they begin."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.agreement import same_configuration, same_folder
from pixelbert_fast.training.ranks import Ranks
from tests.test_engine import environment, free_port, left_in_shared_memory, shared_memory
from tests.test_roll_call import ROOT, TOY

RECIPE = """
training: {steps: 3, images_per_batch: 4, prefetch: 0}
evaluation: {splits: [val]}
"""


def pair(tmp_path, *options):
    """Two processes of one run, each with its own option; (exit statuses, what each said)."""
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(RECIPE)
    common = {"WORLD_SIZE": 2, "LOCAL_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    before = shared_memory()
    processes = [
        subprocess.Popen(
            [sys.executable, TOY, "--config", str(recipe), f"output={tmp_path / 'run'}", *option],
            env=environment(RANK=rank, LOCAL_RANK=rank, PYTHONPATH=ROOT, **common),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, option in enumerate(options)
    ]
    said = [process.communicate(timeout=150)[1] for process in processes]
    assert not left_in_shared_memory(before)
    return [process.returncode for process in processes], said


def test_machines_that_do_not_share_the_output_are_told_so_before_the_first_step(tmp_path):
    # Another path stands for another machine's disk.
    statuses, (first, second) = pair(tmp_path, [], [f"output={tmp_path / 'elsewhere'}"])
    assert statuses == [2, 2]
    assert "does not see what the first process writes into the output" in first
    assert first.count("\n") == 1
    assert second == ""
    assert not (tmp_path / "elsewhere").exists()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["run.json"]


def test_unlike_recipes_are_told_before_anything_is_written(tmp_path):
    statuses, (first, second) = pair(tmp_path, [], ["training.images_per_batch=8"])
    assert statuses == [2, 2]
    assert "process 1 was given training.images_per_batch = 8 and process 0 4;" in first
    assert (first.count("\n"), second) == (1, "")
    assert not (tmp_path / "run").exists()


def test_one_process_agrees_with_itself(tmp_path):
    same_configuration({"training": {"steps": 1}}, Ranks())
    same_folder(tmp_path / "not there", Ranks())


@pytest.mark.parametrize("key", ["output", "threads"])
def test_what_may_differ_between_machines(key):
    class Two(Ranks):
        def collect(self, value):
            other = {**value, "training": dict(value["training"])}
            (other if key == "output" else other["training"])[key] = "other"
            return [value, other]

    same_configuration({"output": "a", "training": {"threads": 1, "zero_stage": 1}}, Two())


def test_the_stage_may_differ_between_sittings_but_not_between_processes():
    class Two(Ranks):
        def collect(self, value):
            return [value, {"training": {"zero_stage": 2}}]

    with pytest.raises(UserError, match=r"process 1 was given training\.zero_stage = 2 and process 0 1"):
        same_configuration({"training": {"zero_stage": 1}}, Two())
