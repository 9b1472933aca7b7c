"""The factor on the learning rates over the steps."""

from __future__ import annotations

import pytest
import torch

from pixelbert_fast.training.config import ScheduleConfig
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer
from pixelbert_fast.training.schedule import Pace, Schedule, make_factor


def test_the_papers_schedule_drops_at_epochs_25_and_35_after_a_warm_up_from_a_third():
    options = ScheduleConfig(kind="step", warmup_steps=1000, milestones=(25, 35))
    factor = make_factor(options, Pace(40 * 1000, 1000.0))
    assert factor(0) == pytest.approx(1 / 3)
    assert factor(500) == pytest.approx(2 / 3)
    assert factor(1000) == factor(24_999) == 1.0
    assert factor(25_000) == factor(34_999) == pytest.approx(0.1)
    assert factor(35_000) == factor(39_999) == pytest.approx(0.01)


def test_cosine_falls_from_the_end_of_the_warm_up_to_the_floor():
    options = ScheduleConfig(kind="cosine", warmup_steps=10, warmup_start=0.0, floor=0.1)
    factor = make_factor(options, Pace(110, 50.0))
    assert factor(0) == 0.0
    assert factor(10) == 1.0
    assert factor(60) == pytest.approx(0.55)
    assert factor(110) == factor(200) == pytest.approx(0.1)
    values = [factor(step) for step in range(10, 111)]
    assert values == sorted(values, reverse=True)


def test_constant_stays():
    factor = make_factor(ScheduleConfig(kind="constant"), Pace(10, 5.0))
    assert {factor(step) for step in range(12)} == {1.0}


def test_milestones_may_be_parts_of_an_epoch():
    factor = make_factor(ScheduleConfig(kind="step", milestones=(0.5,), gamma=0.5), Pace(10, 5.0))
    assert [factor(step) for step in range(4)] == [1.0, 1.0, 0.5, 0.5]


HALVED = ScheduleConfig(kind="step", milestones=(1, 2), gamma=0.5)


def groups(rate):
    return [
        {"params": [torch.ones(1, requires_grad=True)], "lr": rate},
        {"params": [torch.ones(1, requires_grad=True)], "lr": 10 * rate},
    ]


def test_one_factor_for_all_groups_also_after_the_optimiser_was_loaded():
    optimizer = TwoAlgorithmOptimizer(groups(1.0))
    schedule = Schedule(optimizer, HALVED, Pace(10, 1.0))
    schedule.set(2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 2.5]
    # Loading replaces the optimiser's groups by others, which hold the rates of the saved step.
    optimizer.load_state_dict(optimizer.state_dict())
    schedule.set(1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 5.0]


def test_its_state_restores_the_first_rates():
    saved = Schedule(TwoAlgorithmOptimizer(groups(1.0)), HALVED, Pace(10, 1.0)).state_dict()
    optimizer = TwoAlgorithmOptimizer(groups(7.0))
    schedule = Schedule(optimizer, HALVED, Pace(10, 1.0))
    schedule.load_state_dict(saved)
    schedule.set(1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 5.0]
    with pytest.raises(ValueError, match="1 groups, the optimiser 2"):
        schedule.load_state_dict({"base": [1.0]})


def rate_of(schedule, optimizer, step):
    schedule.set(step)
    return optimizer.param_groups[0]["lr"]


def resumed(before, options, *, step, total, updates_per_epoch):
    """What goes on from the state of `before`, after `step` updates, with epochs of another length."""
    optimizer = TwoAlgorithmOptimizer(groups(1.0))
    schedule = Schedule(optimizer, options, Pace(total, updates_per_epoch))
    schedule.load_state_dict(before.state_dict(), step)
    return schedule, optimizer


def test_milestones_stay_at_their_epochs_when_the_processes_change():
    options = ScheduleConfig(kind="step", milestones=(2, 4), gamma=0.1)
    one = Schedule(TwoAlgorithmOptimizer(groups(1.0)), options, Pace(500, 100.0))
    # Two processes from epoch 1.2 on, which read an epoch in 50 steps; again one from epoch 3 on.
    two, optimizer = resumed(one, options, step=120, total=310, updates_per_epoch=50.0)
    assert rate_of(two, optimizer, 159) == 1.0
    assert rate_of(two, optimizer, 160) == pytest.approx(0.1)  # 0.8 of an epoch later
    last, optimizer = resumed(two, options, step=210, total=410, updates_per_epoch=100.0)
    assert rate_of(last, optimizer, 309) == pytest.approx(0.1)
    assert rate_of(last, optimizer, 310) == pytest.approx(0.01)


def test_a_cosine_does_not_jump_when_the_processes_change():
    options = ScheduleConfig(kind="cosine", warmup_steps=10)
    alone = make_factor(options, Pace(1000, 100.0))
    one = Schedule(TwoAlgorithmOptimizer(groups(1.0)), options, Pace(1000, 100.0))
    # Half of the run is made; two processes make most of the rest in half the steps, and one the last tenth.
    two, optimizer = resumed(one, options, step=500, total=750, updates_per_epoch=50.0)
    assert rate_of(two, optimizer, 500) == alone(500)
    assert rate_of(two, optimizer, 600) == pytest.approx(alone(700))
    last, optimizer = resumed(two, options, step=700, total=800, updates_per_epoch=100.0)
    assert rate_of(last, optimizer, 700) == pytest.approx(alone(900))
    assert rate_of(last, optimizer, 790) == pytest.approx(alone(990))
    assert rate_of(last, optimizer, 800) == 0.0


def test_a_state_of_as_many_processes_changes_no_bit():
    options = ScheduleConfig(kind="cosine", warmup_steps=3, floor=0.1)
    before = Schedule(TwoAlgorithmOptimizer(groups(1.0)), options, Pace(77, 11.0))
    optimizer = TwoAlgorithmOptimizer(groups(1.0))
    schedule = Schedule(optimizer, options, Pace(70, 10.0))  # as this sitting would have planned
    schedule.load_state_dict(before.state_dict())
    factor = make_factor(options, Pace(77, 11.0))
    assert [rate_of(schedule, optimizer, step) for step in range(77)] == [factor(step) for step in range(77)]
