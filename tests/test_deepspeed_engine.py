"""DeepSpeed computes what plain PyTorch does, in every ZeRO stage and any number of processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixelbert_fast.training import run as runs
from pixelbert_fast.training.checkpoint import StateFolder
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.recipes import load_config
from tests.deepspeed_ranks import LAST, SAVED, SUMMED, advance, plain_engine, same_state, weights_of
from tests.engine_cases import relative
from tests.test_engine import environment, free_port, left_in_shared_memory, shared_memory
from tests.training_task import ToyTask

ROOT = Path(__file__).resolve().parents[1]


def launched(world: int, script: str, *arguments: str, **variables) -> list[tuple[int, str, str]]:
    """A script of this folder in several processes, as launchers start them: each one's status and output."""
    common = {
        "WORLD_SIZE": world,
        "LOCAL_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / script), *arguments],
            env=environment(RANK=rank, LOCAL_RANK=rank, PYTHONPATH=ROOT, **common, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def checked(world: int, folder: Path) -> list[dict]:
    """The records that `deepspeed_ranks.py` prints in all of its processes."""
    done = launched(world, "deepspeed_ranks.py", str(folder))
    for status, out, errors in done:
        assert status == 0, errors[-2000:]
        # Updates are left out here and weights divided, and DeepSpeed's own words of that frighten.
        assert "OVERFLOW" not in out + errors and "FutureWarning" not in errors
    return [json.loads(line) for _, out, _ in done for line in out.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found, then one, and the folder with the states they wrote."""
    folder = tmp_path_factory.mktemp("states")
    before = shared_memory()
    engine = plain_engine(accumulation=SUMMED)
    advance(engine, range(SAVED))
    StateFolder(folder / "plain", Ranks()).write(SAVED, {}, engine.shared_state(), engine.own_state())
    records = {world: checked(world, folder) for world in (2, 1)}
    return records, folder, left_in_shared_memory(before)


def of(found, check: str, worlds=(1, 2)) -> list[dict]:
    return [
        {"world": world, **record}
        for world in worlds
        for record in found[0][world]
        if record["check"] == check
    ]


def test_every_stage_equals_plain_pytorch_and_resumes_to_the_bit(found):
    """Averaged gradients, accumulation, clipping, frozen and unused weights, both algorithms."""
    records = of(found, "stage")
    assert [(record["world"], record["rank"], record["stage"]) for record in records] == [
        (world, rank, stage) for world, rank in ((1, 0), (2, 0), (2, 1)) for stage in range(4)
    ]
    for record in records:
        # Roundings of sums taken in another order, over five updates; measured 2e-7.
        assert record["from_reference"] < 1e-5, record
        assert record["moved"] > 1e-2, record
        assert record["same"] and record["same_buffers"], record
        assert record["norm"] > 0, record


def test_a_state_is_read_under_another_stage_and_in_another_number_of_processes(found):
    records = [record for record in of(found, "from") if record["rank"] == 0]
    offloaded = {
        (record["source"], record["world"], record["stage"]) for record in records if record["offload"]
    }
    assert offloaded == {
        (source, world, stage) for source, stage in (("2-3", 1), ("2-1", 3)) for world in (1, 2)
    }
    kept = [record for record in records if not record["offload"]]
    assert {(record["source"], record["world"], record["stage"]) for record in kept} == {
        ("plain", 2, 0), ("2-1", 2, 1), ("2-3", 2, 2), ("2-0", 2, 3), ("plain", 2, 3),
        ("2-3", 1, 0), ("2-2", 1, 1), ("2-1", 1, 2), ("2-0", 1, 3),
    }  # fmt: skip
    for record in records:
        assert record["step"] == SAVED and record["same"], record
        assert record["from_reference"] < 1e-5, record


@pytest.mark.parametrize("source", ["2-0", "2-1", "2-2", "2-3", "1-1", "1-3"])
def test_plain_pytorch_reads_every_stages_state(found, source):
    engine, uninterrupted = plain_engine(accumulation=SUMMED), plain_engine(accumulation=SUMMED)
    _, shared, _ = StateFolder(found[1] / source, Ranks()).read()
    engine.load_state(shared, {})
    assert same_state(engine.shared_state(), shared)
    advance(engine, range(SAVED, LAST))
    advance(uninterrupted, range(LAST))
    assert relative(weights_of(engine), weights_of(uninterrupted)) < 1e-5


def test_a_real_model_equals_plain_pytorch_whatever_it_reads_without_its_modules(found):
    """FastPixelBERT in two processes, an update without masked words among them; with offload to the CPU."""
    records = [record for record in of(found, "real", [2]) + of(found, "folded", [2]) if not record["rank"]]
    assert len(records) == 7
    for record in records:
        assert record["from_reference"] < 1e-5, record


def test_fp16_under_deepspeed_skips_the_same_updates_as_plain_pytorch(found):
    records = of(found, "fp16")
    assert [record["stage"] for record in records] == [0, 1, 2, 3]
    for record in records:
        assert record["same_scale"] and record["scale"] < 2.0**20 and record["good"] > 0, record
        # Gradients are rounded to fp16 alike; the sums of the norm are not.
        assert record["from_reference"] < 1e-4, record
        assert record["moved"] > 1e-2, record


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(found):
    records = of(found, "not finite")
    assert len(records) == 9
    for record in records:
        assert record["same"] and record["skipped"] == 1, record


def test_what_deepspeed_does_not_know_in_its_block_is_told_in_one_line(found):
    (record,) = of(found, "block")
    assert record["told"].startswith("DeepSpeed refuses the block deepspeed: ")
    assert "allgather_buckets" in record["told"] and len(record["told"].splitlines()) == 1


def test_nothing_stays_in_shared_memory(found):
    assert not found[2]


RECIPE = """
training: {steps: 12, images_per_batch: 4, log_every: 2, prefetch: 0, checkpoint_every_minutes: 1e-9}
evaluation: {splits: [val], every_epochs: 1}
"""


def test_a_run_with_zero_3_evaluates_and_goes_on_in_one_plain_process(tmp_path, monkeypatch):
    """Killed in the second epoch, after an evaluation by the first process alone."""
    recipe, out = tmp_path / "toy.yaml", tmp_path / "run"
    recipe.write_text(RECIPE)
    arguments = ["--config", str(recipe), f"output={out}", "training.zero_stage=3"]
    done = launched(2, "training_task.py", *arguments, TOY_DEED="kill", TOY_CALL="9")
    assert {status for status, _, _ in done} == {-signal.SIGKILL}, done
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert any(record["kind"] == "evaluation" for record in log), log

    config = load_config(str(recipe), [f"output={out}", "training.zero_stage=0"])
    tasks = []

    def make(config, device):
        tasks.append(ToyTask(config, device))
        return tasks[-1]

    monkeypatch.setattr(runs, "_make_task", make)
    result = runs.run(config, Ranks(), "plain")
    assert result.metrics["steps"] == 12 and result.metrics["processes"] == 1
    saved = torch.load(out / "checkpoint" / "model.pt", weights_only=True)
    assert all(torch.equal(value, saved[name]) for name, value in tasks[0].model.state_dict().items())


@pytest.mark.slow
def test_a_run_with_zero_3_saves_whole_weights(tmp_path):
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(RECIPE)
    weights = {}
    for stage in (0, 3):
        out = tmp_path / str(stage)
        done = launched(
            2, "training_task.py", "--config", str(recipe), f"output={out}", f"training.zero_stage={stage}"
        )
        assert [status for status, _, _ in done] == [0, 0], done[0][2][-2000:]
        weights[stage] = torch.load(out / "checkpoint" / "model.pt", weights_only=True)
    assert relative(weights[3], weights[0]) < 1e-5


@pytest.mark.skipif(torch.cuda.is_available(), reason="beside a GPU the op is never loaded")
def test_deepspeed_is_the_version_whose_shared_memory_op_we_can_switch_off():
    """The switch is undocumented: if another version drops it, buffers would stay in /dev/shm again."""
    code = """
import json, deepspeed, deepspeed.ops
known = "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__
from pixelbert_fast.training.deepspeed_engine import import_deepspeed, join, leave
import_deepspeed()
off = deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] is False
ranks = join()
op = deepspeed.comm.comm.cdb.shm_comm_op
leave()
print(json.dumps([deepspeed.__version__, known, off, op is None, ranks.world]))
"""
    before = shared_memory()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == ["0.19.8", True, True, True, 1]
    assert not left_in_shared_memory(before)
