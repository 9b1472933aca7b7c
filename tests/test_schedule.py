"""The factor on the learning rates over the steps."""

from __future__ import annotations

import pytest
import torch

from pixelbert_fast.training.config import ScheduleConfig
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer
from pixelbert_fast.training.schedule import Schedule, make_factor


def test_the_papers_schedule_drops_at_epochs_25_and_35_after_a_warm_up_from_a_third():
    options = ScheduleConfig(kind="step", warmup_steps=1000, milestones=(25, 35))
    factor = make_factor(options, 40 * 1000, 1000.0)
    assert factor(0) == pytest.approx(1 / 3)
    assert factor(500) == pytest.approx(2 / 3)
    assert factor(1000) == factor(24_999) == 1.0
    assert factor(25_000) == factor(34_999) == pytest.approx(0.1)
    assert factor(35_000) == factor(39_999) == pytest.approx(0.01)


def test_cosine_falls_from_the_end_of_the_warm_up_to_the_floor():
    factor = make_factor(
        ScheduleConfig(kind="cosine", warmup_steps=10, warmup_start=0.0, floor=0.1), 110, 50.0
    )
    assert factor(0) == 0.0
    assert factor(10) == 1.0
    assert factor(60) == pytest.approx(0.55)
    assert factor(110) == factor(200) == pytest.approx(0.1)
    values = [factor(step) for step in range(10, 111)]
    assert values == sorted(values, reverse=True)


def test_constant_stays():
    factor = make_factor(ScheduleConfig(kind="constant"), 10, 5.0)
    assert {factor(step) for step in range(12)} == {1.0}


def test_milestones_may_be_parts_of_an_epoch():
    factor = make_factor(ScheduleConfig(kind="step", milestones=(0.5,), gamma=0.5), 10, 5.0)
    assert [factor(step) for step in range(4)] == [1.0, 1.0, 0.5, 0.5]


def groups(rate):
    return [
        {"params": [torch.ones(1, requires_grad=True)], "lr": rate},
        {"params": [torch.ones(1, requires_grad=True)], "lr": 10 * rate},
    ]


def test_one_factor_for_all_groups_also_after_the_optimiser_was_loaded():
    optimizer = TwoAlgorithmOptimizer(groups(1.0))
    schedule = Schedule(optimizer, lambda step: 0.5**step)
    schedule.set(2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 2.5]
    # Loading replaces the optimiser's groups by others, which hold the rates of the saved step.
    optimizer.load_state_dict(optimizer.state_dict())
    schedule.set(1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 5.0]


def test_its_state_restores_the_first_rates():
    saved = Schedule(TwoAlgorithmOptimizer(groups(1.0)), lambda step: 1.0).state_dict()
    optimizer = TwoAlgorithmOptimizer(groups(7.0))
    schedule = Schedule(optimizer, lambda step: 2.0)
    schedule.load_state_dict(saved)
    schedule.set(0)
    assert [group["lr"] for group in optimizer.param_groups] == [2.0, 20.0]
    with pytest.raises(ValueError, match="1 groups, the optimiser 2"):
        schedule.load_state_dict({"base": [1.0]})
