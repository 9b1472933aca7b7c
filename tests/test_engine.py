"""The two engines compute the same, alone and with several processes, and leave nothing behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from pixelbert_fast.errors import UserError
from pixelbert_fast.training import engine as engines
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer
from pixelbert_fast.training.plain_engine import PlainEngine
from pixelbert_fast.training.ranks import Ranks, threads_per_process

ROOT = Path(__file__).resolve().parents[1]
SHARED_MEMORY = Path("/dev/shm")
CPU = torch.device("cpu")


def environment(**more) -> dict[str, str]:
    launcher = (
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "LOCAL_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "DS_ACCELERATOR",
    )
    kept = {name: value for name, value in os.environ.items() if name not in launcher}
    return {**kept, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in more.items()}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def shared_memory() -> set[str]:
    return set(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.is_dir() else set()


def left_in_shared_memory(before: set[str]) -> set[str]:
    """What is there since `before`; other programs' buffers get a while to go."""
    for _ in range(20):
        left = shared_memory() - before
        if not left:
            break
        time.sleep(0.2)
    return left


def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def plain(model, **options):
    optimizer = TwoAlgorithmOptimizer([{"params": model.parameters(), "algorithm": "sgd", "lr": 0.1}])
    return PlainEngine(model, optimizer, device=CPU, **options)


def test_accumulating_two_halves_equals_the_whole_batch():
    whole, halves = plain(linear()), plain(linear(), accumulation=2)
    x = torch.randn(6, 4)
    whole.backward(whole.model(x).square().mean())
    assert whole.step()
    for part, done in ((x[:3], False), (x[3:], True)):
        halves.backward(halves.model(part).square().mean())
        assert halves.step() is done
    assert torch.allclose(whole.module.weight, halves.module.weight, atol=1e-7)
    assert halves.module.weight.grad is None


def test_clipping_bounds_the_global_norm_and_tells_it():
    engine = plain(linear(), clip_norm=0.5)
    before = torch.cat([p.detach().flatten() for p in engine.module.parameters()])
    engine.backward(100.0 * engine.model(torch.ones(1, 4)).sum())
    engine.step()
    after = torch.cat([p.detach().flatten() for p in engine.module.parameters()])
    # The first step of SGD is the rate times the gradient; its norm was sqrt(2 * (4 + 1)) * 100.
    assert float((after - before).norm()) == pytest.approx(0.1 * 0.5, rel=1e-4)
    assert engine.gradient_norm() == pytest.approx(100.0 * 10**0.5, rel=1e-5)


def test_bf16_computes_in_bf16_and_keeps_fp32_weights():
    engine = plain(linear(), bf16=True)
    with engine.autocast():
        out = engine.model(torch.ones(1, 4))
    assert out.dtype == torch.bfloat16
    engine.backward(out.float().sum())
    engine.step()
    assert {p.dtype for p in engine.module.parameters()} == {torch.float32}
    with plain(linear()).autocast():
        assert engine.model(torch.ones(1, 4)).dtype == torch.float32


def test_auto_is_deepspeed_exactly_when_a_launcher_started_the_process(monkeypatch):
    for name in ("LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert engines.engine_name("auto") == "plain"
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert engines.engine_name("auto") == "deepspeed"
    assert engines.engine_name("plain") == "plain"
    with pytest.raises(UserError, match="one process and 2 were started"):
        engines.start_ranks("plain")


def test_cores_are_divided_among_a_machines_processes():
    alone = threads_per_process(Ranks())
    assert alone >= 1
    assert threads_per_process(Ranks(world=4, local_world=2)) == max(alone // 2, 1)
    assert threads_per_process(Ranks(world=10_000, local_world=10_000)) == 1


def test_alone_the_ranks_need_no_process_group():
    ranks = Ranks()
    assert (ranks.first, ranks.any(True), ranks.any(False)) == (True, True, False)
    assert (ranks.gather(3), ranks.mean([1.0, 2.0])) == ([3], [1.0, 2.0])
    assert ranks.first_does(lambda: "done") == "done"
    ranks.barrier()


def test_deepspeed_in_two_processes_equals_plain_pytorch_at_every_stage(tmp_path):
    """Averaged gradients, accumulation, clipping, frozen weights, both algorithms, saving and resuming."""
    before = shared_memory()
    common = {"WORLD_SIZE": 2, "LOCAL_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "deepspeed_ranks.py"), str(tmp_path)],
            env=environment(RANK=rank, LOCAL_RANK=rank, PYTHONPATH=ROOT, **common),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=180) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-2000:]
    records = [json.loads(line) for out, _ in outputs for line in out.splitlines() if line.startswith("{")]
    assert [record["stage"] for record in records] == [0, 1, 2, 0, 1, 2]
    for record in records:
        # Rounding of averages taken in another order; measured 1.5e-8.
        assert record["from_reference"] < 1e-6, record
        assert record["moved"] > 1e-2, record
        assert record["resumed"] == 0.0, record
        assert record["same_buffers"], record
        assert record["norm"] > 0, record
    assert not left_in_shared_memory(before)


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
