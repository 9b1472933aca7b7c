"""Why costs grow faster than work: what the script counts, and that it runs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import growth_causes
import op_contests


def test_a_window_counts_again_for_each_sequence_that_reads_it() -> None:
    case = replace(growth_causes.CASE, batch=2, per_image=2, channels=8)
    positions = torch.tensor([[0, 1, 2], [2, 3, 4], [0, 1, 2], [5, 6, 7]])
    given = SimpleNamespace(positions=positions, grad=torch.zeros(1))
    assert growth_causes.read_again(case, given) == 4 * 8 * 4  # window 2 of the first image, once


def test_both_series_are_measured_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(growth_causes.CASE, batch=1, channels=8, height=8, width=8, count=5)
    monkeypatch.setattr(growth_causes, "CASE", small)
    monkeypatch.setattr(growth_causes, "SERIES", {"captions": ("per_image", (1, 4))})
    lines = growth_causes.measured(rounds=2, seconds=0.0)
    whos = {line["contestant"] for line in lines}
    assert whos == {"reference", "cpu", op_contests.COPY, op_contests.ALLOCATION}
    forward = [line for line in lines if (line["series"], line["contestant"]) == ("captions, forward", "cpu")]
    assert [line["size"] for line in forward] == [1, 4]
    assert forward[0]["fewest"] == forward[0]["every"] < forward[1]["fewest"] < forward[1]["every"]
    text = "\n".join(growth_causes.tables({"as it comes": lines, "memory kept": lines}))
    assert text.count("**pool_gather against captions, ") == 2
    assert text.count("| cpu: slope |") == 2 and "| cpu, 4 |" in text


def test_the_allocator_is_changed_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def run(command, *, env, **_):
        seen.update(command=command, env=env)
        return SimpleNamespace(stdout='[{"size": 1}]')

    monkeypatch.setattr(growth_causes.subprocess, "run", run)
    told = SimpleNamespace(threads=2, rounds=3, seconds=0.5)
    assert growth_causes.asked(told, growth_causes.KEPT) == [{"size": 1}]
    assert seen["env"].items() >= growth_causes.KEPT.items() and "--child" in seen["command"]
