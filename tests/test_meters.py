"""What is told of an interval: rates, waits, step times, the share of the peak, norms, memory."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pixelbert_fast.training import meters, peaks
from pixelbert_fast.training import run as runs
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.loop import Position
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer
from pixelbert_fast.training.plain_engine import PlainEngine
from pixelbert_fast.training.ranks import Ranks
from tests.training_task import ToyTask

CPU = torch.device("cpu")


@pytest.fixture
def now(monkeypatch):
    """A clock that the test sets."""
    time = [100.0]
    monkeypatch.setattr(meters.time, "perf_counter", lambda: time[0])
    return time


def test_an_interval_tells_its_rates_waits_and_steps_and_leaves_out_what_was_no_training(now):
    position = Position(pairs=7)
    clock = meters.Clock(position)
    for number, seconds in enumerate([1.0, 1.0, 1.0, 5.0]):
        now[0] += 0.25
        clock.batch(waited=0.25, images=3, flops=2 * 10**12)
        position.pairs += 10
        now[0] += seconds - 0.25
        clock.tick()
        if number == 0:
            clock.pause()
            now[0] += 1000.0  # an evaluation
            clock.go_on()
        if number == 1:
            clock.rate(position)
            now[0] += 50.0  # a state is written
            clock.saved()
    assert clock.interval(position) == {
        "pairs_per_second": 5.0,
        "images_per_second": 1.5,
        "data_wait": 0.125,
        "step_seconds": 1.0,
        "step_seconds_p95": 5.0,
        "tflops": 1.0,
    }
    # Writing states counts as the run's time, evaluating does not.
    assert position.seconds == 8.0 + 50.0
    now[0] += 2.0
    position.pairs += 4
    clock.tick()
    assert clock.interval(position)["pairs_per_second"] == 2.0
    assert clock.since_save() == 8.0  # the steps of 1 and 5 s, and the last 2


@pytest.mark.parametrize(
    ("name", "precision", "tf32", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", True, 989.0),
        ("NVIDIA H100 PCIe", "bf16", True, 756.0),
        ("NVIDIA H100 80GB HBM3", "fp32", True, 494.0),
        ("NVIDIA H100 80GB HBM3", "fp32", False, 67.0),
        ("NVIDIA A100-SXM4-80GB", "fp16", True, 312.0),
        ("NVIDIA A10G", "bf16", True, 70.0),
        ("NVIDIA A10", "bf16", True, 125.0),
        ("NVIDIA L40S", "bf16", True, 362.0),
        ("NVIDIA L4", "bf16", True, 121.0),
        ("NVIDIA GeForce RTX 4090", "bf16", True, 165.2),
        ("NVIDIA Something New", "bf16", True, None),
    ],
)
def test_the_peak_of_a_gpu_is_known_by_its_name(name, precision, tf32, peak):
    assert peaks.known_peak(name, precision, tf32) == peak


def test_a_cpu_has_no_peak_unless_it_is_given():
    assert peaks.peak_tflops(CPU, "bf16") is None
    assert peaks.peak_tflops(CPU, "bf16", given=1.5) == 1.5


def test_norms_are_those_before_clipping_by_label():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    groups = [
        {"params": list(model[0].parameters()), "name": "low"},
        {"params": list(model[1].parameters()), "name": "high"},
    ]

    def norms(clip):
        engine = PlainEngine(model, TwoAlgorithmOptimizer(groups), device=CPU, clip_norm=clip)
        engine.optimizer.param_groups[0]["lr"] = engine.optimizer.param_groups[1]["lr"] = 0.0
        engine.backward(100.0 * model(torch.ones(2, 4)).sum())
        wanted = [torch.cat([p.grad.flatten() for p in part.parameters()]).norm() for part in model]
        engine.step()
        return meters.gradient_norms(engine, Ranks()), [float(one) for one in wanted]

    (clipped_whole, clipped), wanted = norms(0.1)
    (whole, free), _ = norms(None)
    assert [clipped["low"], clipped["high"]] == pytest.approx(wanted, rel=1e-5)
    assert [free["low"], free["high"]] == pytest.approx(wanted, rel=1e-5)
    assert clipped_whole == pytest.approx(math.hypot(*wanted), rel=1e-5)
    assert whole == pytest.approx(clipped_whole, rel=1e-5)


@pytest.mark.parametrize("spread", [True, False])
def test_norms_are_the_same_whether_processes_hold_pieces_or_all(spread):
    """Two processes are stood for by what the other one adds to the mean."""
    whole = {"low": 3.0, "high": 4.0}
    mine = {"low": 1.0, "high": 4.0} if spread else whole
    others = {"low": 8.0**0.5, "high": 0.0} if spread else whole

    class Two(Ranks):
        def mean(self, values):
            return [(a + others[name] ** 2) / 2 for a, name in zip(values, whole, strict=True)]

    optimizer = TwoAlgorithmOptimizer(
        [{"params": [torch.ones(1, requires_grad=True)], "name": name} for name in whole]
    )
    optimizer.gradient_norms = lambda: {name: torch.tensor(norm) for name, norm in mine.items()}
    engine = SimpleNamespace(optimizer=optimizer, gradient_norm=lambda: 5.0)
    found, norms = meters.gradient_norms(engine, Two())
    assert found == 5.0
    assert norms == pytest.approx(whole)
    # ZeRO leaves an update out before the optimiser sees it: what that told is of an earlier one.
    engine.gradient_norm = lambda: float("inf")
    _, norms = meters.gradient_norms(engine, Two())
    assert all(math.isnan(norm) for norm in norms.values())


def test_memory_is_this_process_own():
    before = meters.memory(CPU)["host"]
    kept = torch.ones(32 * 2**20)  # 128 MiB
    assert meters.memory(CPU)["host"] - before == pytest.approx(128, abs=16)  # what else is freed meanwhile
    assert kept.sum() > 0


def test_the_bar_says_what_is_late():
    figures = {"pairs_per_second": 45.2, "data_wait": 0.3}
    assert meters.status({"loss": 3.2141}, figures) == ["loss 3.214", "waiting for data 30 %", "45 pairs/s"]
    figures = {"pairs_per_second": 4.52, "data_wait": 0.02}
    assert meters.status({"loss": 3.2141}, figures) == ["loss 3.214", "4.5 pairs/s"]


@pytest.mark.parametrize("clip", [None, 0.01])
def test_a_record_holds_every_figure(monkeypatch, tmp_path, clip):
    config = RunConfig(
        output=str(tmp_path / "run"),
        training={"steps": 4, "images_per_batch": 4, "log_every": 2, "peak_tflops": 2.0},
        optimizer={"clip_norm": clip},
    )
    monkeypatch.setattr(runs, "_make_task", ToyTask)
    runs.run(config, Ranks(), "plain")
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [2, 4]
    for record in records:
        assert list(record) == [
            "kind", "step", "epoch", "loss", "part", "gradient_norm", "gradient_norms", "lr",
            "pairs_per_second", "images_per_second", "data_wait", "step_seconds", "step_seconds_p95",
            "tflops", "mfu", "broken_images", "skipped_updates", "memory", "seconds",
        ]  # fmt: skip
        assert record["gradient_norm"] == pytest.approx(math.hypot(*record["gradient_norms"].values()))
        assert record["gradient_norms"].keys() == record["lr"].keys() == {"backbone", "transformer"}
        assert record["images_per_second"] == pytest.approx(record["pairs_per_second"])
        # 4 images a batch, 1000 operations each.
        assert record["tflops"] == pytest.approx(record["images_per_second"] * 1000 / 1e12)
        assert record["mfu"] == pytest.approx(record["tflops"] / 2.0)
        assert 0 <= record["data_wait"] <= 1
        assert 0 < record["step_seconds"] <= record["step_seconds_p95"]
        assert record["memory"]["host"] > 10
        assert (record["broken_images"], record["skipped_updates"]) == (0, 0)
