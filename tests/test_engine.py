"""The plain engine, and what both engines share."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.training import engine as engines
from pixelbert_fast.training.canonical_state import Piece, scatter_pieces
from pixelbert_fast.training.loss_scale import LossScale
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer
from pixelbert_fast.training.plain_engine import PlainEngine
from pixelbert_fast.training.ranks import Ranks, threads_per_process

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
    engine = plain(linear(), precision="bf16")
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


def test_a_parameter_that_an_update_leaves_unused_has_gradient_zero():
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])
    optimizer = TwoAlgorithmOptimizer(
        [{"params": model.parameters(), "algorithm": "sgd", "lr": 0.1, "weight_decay": 0.5, "momentum": 0.9}]
    )
    engine = PlainEngine(model, optimizer, device=CPU)
    before = model[1].weight.detach().clone()
    engine.backward(model[0](torch.ones(1, 4)).sum())
    engine.step()
    assert torch.allclose(model[1].weight, before * (1 - 0.1 * 0.5), atol=1e-7)


def test_fp16_skips_what_overflows_and_scales_as_torch_does():
    """Against torch's own GradScaler: gradients that overflow in two of twelve updates."""
    factors = [1.0, 1e30, 1.0, 1.0, 1.0, 1.0, float("nan"), 1.0, 1.0, 1.0, 1.0, 1.0]
    ours, theirs = plain(linear(), precision="fp16"), linear()
    ours._scale = LossScale(interval=3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=3)
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    scales = []
    for number, factor in enumerate(factors):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(number))
        with ours.autocast():
            loss = ours.model(x).square().mean()
        ours.backward(loss * factor)
        ours.step()
        with torch.autocast("cpu", dtype=torch.float16):
            other = theirs(x).square().mean()
        scaler.scale(other * factor).backward()
        scaler.step(sgd)
        scaler.update()
        sgd.zero_grad()
        scales.append((ours.shared_state()["scaler"]["scale"], scaler.get_scale()))
    assert all(mine == its for mine, its in scales), scales
    steps = [after[0] / before[0] for before, after in itertools.pairwise(scales)]
    assert {0.5, 1.0, 2.0} == set(steps)
    # One rounding of a product: torch divides by the scale in another place.
    assert torch.allclose(ours.module.weight, theirs.weight, atol=1e-7)


def test_fp16_scale_is_saved_and_a_hopeless_one_ends_the_run():
    engine, again = plain(linear(), precision="fp16"), plain(linear(), precision="fp16")
    for _ in range(3):
        engine.backward(engine.model(torch.ones(1, 4)).sum() * float("inf"))
        engine.step()
    again.load_state(engine.shared_state(), {})
    assert again.shared_state()["scaler"] == {"scale": 2.0**13, "good": 0}
    before = engine.module.weight.detach().clone()

    def forever():
        while True:
            engine.backward(engine.model(torch.ones(1, 4)).sum() * float("inf"))
            engine.step()

    with pytest.raises(RunError, match=r"lower the learning rates or use training\.precision=bf16"):
        forever()
    assert torch.equal(engine.module.weight, before)


def test_the_state_is_by_name_and_says_what_does_not_fit():
    engine = plain(linear())
    engine.backward(engine.model(torch.ones(1, 4)).sum())
    engine.step()
    state = engine.shared_state()
    assert set(state["optimizer"]) == {"weight", "bias"}
    assert state["optimizer"]["weight"]["first"].shape == (2, 4)
    assert float(state["optimizer"]["bias"]["step"]) == 1.0

    def loaded(change):
        optimizer = {name: dict(values) for name, values in state["optimizer"].items()}
        change(optimizer)
        plain(linear()).load_state({**state, "optimizer": optimizer}, {})

    with pytest.raises(ValueError, match="it has no optimiser state of bias"):
        loaded(lambda saved: saved.pop("bias"))
    with pytest.raises(ValueError, match="it has optimiser state of more, which is not trained"):
        loaded(lambda saved: saved.update(more=saved["bias"]))
    with pytest.raises(ValueError, match=r"of bias is of shape \[3\], not \[2\]"):
        loaded(lambda saved: saved["bias"].update(first=torch.zeros(3)))
    with pytest.raises(ValueError, match="of an earlier version"):
        plain(linear()).load_state({**state, "optimizer": {"state": {}, "param_groups": []}}, {})


def test_pieces_of_unlike_step_counts_are_refused():
    """One flat tensor has one count: a bias correction of its own is lost for each other one in it."""
    flat = torch.zeros(4, requires_grad=True)
    optimizer = TwoAlgorithmOptimizer([{"params": [flat], "algorithm": "adamw"}])
    shape = torch.Size([2])
    pieces = [Piece("a", shape, flat, 0, 0, 2), Piece("b", shape, flat, 2, 0, 2)]
    state = {"first": torch.zeros(2), "second": torch.zeros(2)}
    saved = {name: {"step": torch.tensor(count), **state} for name, count in (("a", 3.0), ("b", 2.0))}
    weights = {"a": torch.ones(2), "b": torch.ones(2)}
    with pytest.raises(ValueError, match="a had 3 updates and b 2, which ZeRO cannot keep apart"):
        scatter_pieces(pieces, optimizer, weights, saved)
    saved["b"]["step"] = torch.tensor(3.0)
    scatter_pieces(pieces, optimizer, weights, saved)
    assert float(optimizer.state[flat]["step"]) == 3.0 and torch.equal(flat.detach(), torch.ones(4))
