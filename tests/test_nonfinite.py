"""A loss or a gradient that is not finite: its update is left out, named, and too many end the run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pixelbert_fast.errors import RunError
from pixelbert_fast.training import run as runs
from pixelbert_fast.training.checkpoint import StateFolder
from pixelbert_fast.training.config import RunConfig, ScheduleConfig
from pixelbert_fast.training.loop import Position, TrainingLoop
from pixelbert_fast.training.nonfinite import NonFinite
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer
from pixelbert_fast.training.plain_engine import PlainEngine
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.schedule import Pace, Schedule
from tests.training_task import ToyTask

ROOT = Path(__file__).resolve().parents[1]
NAN = float("nan")


def configuration(folder, **training):
    options = {"steps": 6, "images_per_batch": 4, "log_every": 4, "prefetch": 0, **training}
    return RunConfig(output=str(folder), training=options, schedule={"kind": "cosine", "warmup_steps": 2})


class Planted(ToyTask):
    """Something that is not finite in the batches of given calls: in the pixels, the loss or a gradient."""

    def __init__(self, config, **calls):
        super().__init__(config)
        self.planted = {name: set(which) for name, which in calls.items()}
        self.model.head[1].bias.register_hook(self.gradient)

    def has(self, what):
        return self.calls in self.planted.get(what, ())

    def gradient(self, grad):
        return torch.full_like(grad, float("inf")) if self.has("gradient") else grad

    def loss(self, model, batch):
        if self.calls + 1 in self.planted.get("pixels", ()):
            batch = {**batch, "pixels": batch["pixels"] * NAN}
        loss, scalars = super().loss(model, batch)
        if self.has("loss"):
            loss = loss + torch.tensor(float("inf"))  # its gradient is finite
        return loss, scalars


def trained(monkeypatch, config, **calls):
    """Run it; returns the state it ended with and the log."""
    task = Planted(config, **calls)
    monkeypatch.setattr(runs, "_make_task", lambda *_: task)
    runs.run(config, Ranks(), "plain")
    lines = (Path(config.output) / "log.jsonl").read_text().splitlines()
    return {name: value.clone() for name, value in task.model.state_dict().items()}, [
        json.loads(line) for line in lines
    ]


def without(monkeypatch, folder, call, **training):
    """The run whose update of the batch at `call` is never made, by other means than those under test."""
    config = configuration(folder, **training)
    task = ToyTask(config)
    monkeypatch.setattr(runs, "_make_task", lambda *_: task)
    kept = {}

    def keep(number):
        if number == call:
            kept.update({name: value.clone() for name, value in task.model.state_dict().items()})

    task.model.backbone.register_forward_pre_hook(lambda *_: keep(task.calls))
    step, made = PlainEngine.step, []

    def leave_out(engine):
        made.append(1)
        if len(made) != call:
            return step(engine)
        engine.optimizer.zero_grad(set_to_none=True)
        engine.module.load_state_dict(kept)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(PlainEngine, "step", leave_out)
        runs.run(config, Ranks(), "plain")
    return task.model.state_dict()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("what", ["pixels", "loss", "gradient"])
def test_the_run_goes_on_to_the_bit_as_if_that_update_had_not_been(monkeypatch, tmp_path, capsys, what):
    """With it goes what the batch did to batch norm's statistics, which NaN pixels would have ruined."""
    wanted = without(monkeypatch, tmp_path / "without", 3)
    found, log = trained(monkeypatch, configuration(tmp_path / "run"), **{what: [3]})
    assert all(torch.isfinite(value).all() for value in found.values())
    assert same(found, wanted)
    told = "gradient" if what == "gradient" else "loss"
    (record,) = [line for line in log if line["kind"] == "left_out"]
    images = ["toy-200", "toy-201", "toy-202", "toy-203"]
    assert record == {"kind": "left_out", "step": 3, "what": told, "images": images}
    assert f"the {told} is not finite at step 3; images: toy-200, toy-201" in capsys.readouterr().err
    train = [line for line in log if line["kind"] == "train"]
    assert [line["skipped_updates"] for line in train] == [1, 1]
    assert all(line["loss"] is not None for line in train)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["skipped_updates"] == 1


def test_in_the_middle_of_accumulation_the_whole_update_goes_and_only_its_batch_is_named(
    monkeypatch, tmp_path
):
    config = configuration(tmp_path / "run", accumulation=3, steps=3)
    found, log = trained(monkeypatch, config, pixels=[5])
    (record,) = [line for line in log if line["kind"] == "left_out"]
    assert (record["step"], record["what"]) == (2, "loss")
    assert record["images"] == [f"toy-{400 + i}" for i in range(4)]
    assert all(torch.isfinite(value).all() for value in found.values())
    # Of a gradient nobody knows which of the batches it came from.
    _, log = trained(monkeypatch, configuration(tmp_path / "other", accumulation=3, steps=3), gradient=[5])
    (record,) = [line for line in log if line["kind"] == "left_out"]
    assert (record["step"], record["what"], len(record["images"])) == (2, "gradient", 12)


def test_one_more_than_may_be_ends_the_run_with_what_to_do(monkeypatch, tmp_path):
    config = configuration(tmp_path / "run", skip_nonfinite=1, checkpoint_every_minutes=1e-9, log_every=100)
    with pytest.raises(RunError) as failure:
        trained(monkeypatch, config, loss=[2, 5])
    assert str(failure.value) == (
        "the loss is not finite at step 5; images: toy-400, toy-401, toy-402, toy-403; it is update 2 to be"
        " left out and training.skip_nonfinite is 1: lower the learning rates, lengthen the warm-up or"
        " tighten optimizer.clip_norm"
    )
    # The state of step 4 stays, with the count, and finite.
    record, shared, _ = StateFolder(tmp_path / "run" / "resume", Ranks()).read()
    assert (record["step"], record["position"]["skipped"]) == (4, 1)
    assert all(torch.isfinite(value).all() for value in shared["model"].values())
    # Resumed, it still knows that one was left out.
    with pytest.raises(RunError, match=r"at step 6; .* it is update 2 to be left out"):
        trained(monkeypatch, config, loss=[2])


class Readings(TorchDispatchMode):
    """Counts the values that the host reads from tensors, each of which waits for a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_between_two_records_no_value_is_read(tmp_path):
    task = Planted(configuration(tmp_path))
    model = task.model.train()
    optimizer = TwoAlgorithmOptimizer(
        [
            {"params": list(model.backbone.parameters()), "algorithm": "sgd", "lr": 0.1},
            {"params": list(model.head.parameters())},
        ]
    )
    engine = PlainEngine(model, optimizer, device=torch.device("cpu"), clip_norm=1.0)
    watch = NonFinite(task, engine, Ranks(), 3)
    batches = list(task.batches(0, 0, 1))
    with Readings() as readings:
        for number, batch in enumerate(batches):
            loss, _ = task.loss(engine.model, batch)
            engine.backward(watch.guard(loss))
            engine.step()
            watch.batch(number + 1, loss.detach().reshape(1), batch["rows"])
            watch.updated()
    assert readings.count == 0
    with Readings() as readings:
        float(loss.detach())
    assert readings.count == 1
    values, left_out = watch.read()
    assert (len(values), left_out) == (6, [])


class Averaging(PlainEngine):
    """One of two processes whose gradients are averaged."""

    def step(self):
        for parameter in self.module.parameters():
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= 2
        return super().step()


class Lines:
    """A log that keeps what it is told."""

    def __init__(self):
        self.records, self.said = [], []

    def write(self, kind, step, values):
        self.records.append({"kind": kind, "step": step, **values})

    def say(self, text):
        self.said.append(text)


def one_of_two(rank: int, port: str, folder: str) -> None:
    """Both run four steps; the second process meets NaN pixels in the second."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    ranks = Ranks(rank, 2, rank, 2, torch.distributed.group.WORLD)
    config = configuration(f"{folder}/{rank}", steps=4)
    task = Planted(config, pixels=[2] if rank else [])
    optimizer = TwoAlgorithmOptimizer([{"params": list(task.model.parameters())}])
    engine = Averaging(task.model, optimizer, device=torch.device("cpu"))
    loop = TrainingLoop(
        task,
        engine,
        Schedule(optimizer, ScheduleConfig(kind="constant"), Pace(4, 1.0)),
        ranks=ranks,
        states=StateFolder(Path(folder) / "resume", ranks),
        log=(log := Lines()),
        options=config.training,
        record={},
    )
    position = Position()
    loop.run(position, 4)
    weights = torch.cat([p.detach().flatten() for p in task.model.parameters()])
    told = {
        "left_out": [line for line in log.records if line["kind"] == "left_out"],
        "loss": [line["loss"] for line in log.records if line["kind"] == "train"],
        "skipped": position.skipped,
        "weights": weights.double().sum().item(),
        "finite": all(bool(torch.isfinite(v).all()) for v in task.model.state_dict().values()),
    }
    print(json.dumps(told))
    torch.distributed.destroy_process_group()


def test_what_one_process_meets_is_left_out_and_told_in_both(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys; from tests.test_nonfinite import one_of_two as go; go(int(sys.argv[1]), *sys.argv[2:])"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), str(port), str(tmp_path)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in started]
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in outputs)
    assert first == second
    images = [f"toy-{100 + i}" for i in range(4)]
    assert first["left_out"] == [{"kind": "left_out", "step": 2, "what": "loss", "images": images}]
    assert (first["skipped"], first["finite"], len(first["loss"])) == (1, True, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_waited_for_only_where_values_are_read(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.LazyLinear(2))

        def forward(self, x):
            return self.layers(x).square().mean()

    device = torch.device("cuda")
    model = Net().to(device)
    inputs = torch.randn(4, 3, 8, 8, device=device)
    model(inputs)
    engine = PlainEngine(
        model, TwoAlgorithmOptimizer([{"params": list(model.parameters())}]), device=device, clip_norm=1.0
    )
    watch = NonFinite(None, engine, Ranks(), 3)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(5):
            loss = model(inputs * (NAN if step == 2 else 1.0))
            engine.backward(watch.guard(loss))
            engine.step()
            watch.batch(step + 1, loss.detach().reshape(1), None)
            watch.updated()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    values, (one,) = watch.read()
    assert (len(values), one) == (4, (3, "loss", []))
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
