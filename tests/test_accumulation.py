"""The global batch: the same on any number of processes, or an error that names what can be had."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.accumulation import pairs_per_pass, with_accumulation
from pixelbert_fast.training.config import RunConfig
from tests.test_engine import environment, left_in_shared_memory, shared_memory

TOY = str(Path(__file__).with_name("training_task.py"))
RECIPE = """
data: {captions_per_image: 1}
training:
  {steps: 5, images_per_batch: 4, pairs_per_step: 16, prefetch: 0, checkpoint_every_minutes: 1e-9}
evaluation: {splits: [val]}
"""


def config(task="pretrain", captions=4, **training):
    return RunConfig(
        task=task,
        data={"captions_per_image": captions},
        training={"steps": 3, "images_per_batch": 16, **training},
    )


@pytest.mark.parametrize(("world", "passes"), [(1, 64), (2, 32), (8, 8), (64, 1)])
def test_the_papers_batch_is_reached_on_any_number_of_processes(world, passes):
    resolved = with_accumulation(config(pairs_per_step=4096), world)
    assert resolved.training.accumulation == passes
    assert passes * pairs_per_pass(resolved, world) == 4096
    # What is resolved is a configuration of its own, and says the same once more.
    assert RunConfig.model_validate(resolved.model_dump()) == resolved
    assert with_accumulation(resolved, world) == resolved


def test_nothing_is_resolved_where_the_accumulation_is_given():
    given = config(accumulation=3)
    assert with_accumulation(given, 5) is given


@pytest.mark.parametrize(
    ("world", "wanted", "words"),
    [
        (3, 4096, ["3 processes", "192 pairs", "the nearest are 4032 and 4224"]),
        (1, 100, ["1 process ", "64 pairs", "the nearest are 64 and 128"]),
        (128, 4096, ["128 processes", "8192 pairs", "the nearest is 8192"]),
    ],
)
def test_a_batch_that_does_not_come_out_even_names_the_nearest(world, wanted, words):
    with pytest.raises(UserError) as caught:
        with_accumulation(config(pairs_per_step=wanted), world)
    message = str(caught.value)
    assert "\n" not in message
    for word in [f"training.pairs_per_step = {wanted}", "training.images_per_batch = 16", *words]:
        assert word in message


def test_an_object_is_one_pair_however_many_texts_others_have():
    assert pairs_per_pass(config(task="objects"), 2) == 32
    assert with_accumulation(config(task="objects", pairs_per_step=64), 2).training.accumulation == 2


def started(out, *overrides, world=1, **variables):
    """The toy task's training, in `world` processes; their exit statuses and what they said."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    recipe = out.parent / "toy.yaml"
    recipe.write_text(RECIPE)
    line = [sys.executable, TOY, "--config", str(recipe), f"output={out}", *overrides]
    group = {"WORLD_SIZE": world, "LOCAL_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    places = [{**group, "RANK": rank, "LOCAL_RANK": rank} for rank in range(world)] if world > 1 else [{}]
    processes = [
        subprocess.Popen(
            line,
            env=environment(**place, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for place in places
    ]
    said = [process.communicate(timeout=180)[0] for process in processes]
    return [process.returncode for process in processes], "\n".join(said)


def test_a_run_that_goes_on_with_fewer_processes_keeps_its_global_batch(tmp_path):
    before, out = shared_memory(), tmp_path / "run"
    # Two passes a step: killed in the second step, after the first was saved.
    statuses, said = started(out, world=2, TOY_DEED="kill")
    assert statuses == [-9, -9], said
    statuses, said = started(out)
    assert statuses == [0], said
    assert "going on after step 1 of 5" in said
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["processes"] == 1
    assert metrics["pairs"] == 5 * 16, "sixteen pairs in every step, before and after"
    assert not left_in_shared_memory(before)
