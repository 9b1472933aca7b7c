"""Two reports of benchmarks compared: what counts as a regression, what as noise, and what as a mistake."""

from __future__ import annotations

import copy
import json
import math
import random
import sys
from pathlib import Path

import pytest

from tests.benchmark_reports import FAST, POOL, changed, contest, cpu_report, gpu_report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import compare_results
import judging


@pytest.fixture
def compared(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Exit status, output and errors of a comparison of reports."""

    def run(before: dict, after: dict, *options: str, more: tuple[dict, ...] = ()) -> tuple[int, str, str]:
        paths = []
        for place, report in enumerate((before, after, *more)):
            paths.append(tmp_path / f"{place}.json")
            paths[-1].write_text(json.dumps(report))
        further = ["--more-of-a", *map(str, paths[2:])] if more else []
        status = compare_results.main([*map(str, paths[:2]), *further, *options])
        return status, *capsys.readouterr()

    return run


def test_a_report_beside_itself_is_unchanged(compared) -> None:
    status, out, _ = compared(cpu_report(), cpu_report())
    assert status == 0
    assert "0 improved, 0 regressed, 0 only in A, 0 only in B" in out
    assert "|" not in out


def test_what_became_slower_beyond_noise_is_named_and_ends_with_1(compared) -> None:
    slower = changed(cpu_report(), stage="step", contestant=FAST, factor=1.3)
    status, out, _ = compared(cpu_report(), slower)
    assert status == 1
    assert "0 improved, 2 regressed" in out
    assert "| regressed | step: r50, frozen norm, float32" in out and "-23.1 %" in out


def test_what_became_faster_is_no_regression(compared) -> None:
    status, out, _ = compared(cpu_report(), changed(cpu_report(), stage="step", contestant=FAST, factor=0.7))
    assert status == 0 and "2 improved, 0 regressed" in out


def test_only_ours_is_judged(compared) -> None:
    slower = changed(cpu_report(), stage="ops", contestant="reference, compiled", factor=3.0)
    assert compared(cpu_report(), slower)[0] == 0


def test_a_change_below_the_least_that_counts_is_noise(compared) -> None:
    calm = changed(cpu_report(), stage="ops", contestant="cpu", block_ratios=[2.0, 2.0, 2.0, 2.0])
    slower = changed(calm, stage="ops", contestant="cpu", factor=1.04)
    assert compared(calm, slower)[0] == 0
    assert compared(calm, slower, "--least", "0.03")[0] == 1


def test_blocks_that_differ_make_a_change_noise(compared) -> None:
    slower = changed(cpu_report(), stage="ops", contestant="cpu", factor=1.2)
    assert compared(cpu_report(), slower)[0] == 1
    # Deviation of the logs 0.21, of a mean of four 0.10, of a difference of two 0.15; e^0.45 is 1.6.
    wavering = {"stage": "ops", "contestant": "cpu", "block_ratios": [3.0, 4.5, 3.2, 4.4]}
    assert compared(changed(cpu_report(), **wavering), changed(slower, **wavering))[0] == 0


def test_runs_of_the_same_state_that_differ_make_a_change_noise(compared) -> None:
    one = {"stage": "optimizer", "contestant": "ours, fused"}
    slower = changed(cpu_report(), **one, factor=1.15)
    more = tuple(changed(cpu_report(), **one, factor=factor) for factor in (1.08, 0.93))
    assert compared(cpu_report(), slower)[0] == 1
    assert compared(cpu_report(), slower, more=more)[0] == 0
    assert compared(cpu_report(), changed(cpu_report(), **one, factor=2.0), more=more)[0] == 1


def test_the_noise_between_runs_is_that_of_a_further_run() -> None:
    logs = [math.log(value) for value in (2.0, 2.2, 2.1)]
    rows = [{"times_faster": math.exp(log)} for log in logs]
    middle = sum(logs) / 3
    expected = sum((log - middle) ** 2 for log in logs) / 2 * (1 + 1 / 3)
    assert judging._between(judging.RATIO, rows) == pytest.approx(expected)


def test_noise_alone_hardly_ever_regresses_and_a_real_change_always_does() -> None:
    """Rows whose blocks waver by 5 %: fewer than 3 of 200 regress, and of those 30 % slower nearly all do."""
    draw = random.Random(0)

    def report(factor: float) -> dict:
        rows = []
        for place in range(200):
            row = contest("ops", f"case {place}", [("reference", "reference", 2.0), ("cpu", "ours", 1.0)])[1]
            blocks = [2.0 / factor * math.exp(draw.gauss(0, 0.05)) for _ in range(4)]
            row["block_ratios"] = blocks
            row["times_faster"] = math.exp(sum(map(math.log, blocks)) / 4)
            rows.append(row)
        return {**cpu_report(), "stages": {"ops": {"rows": rows}}}

    def regressed(factor: float) -> int:
        verdicts = judging.judge(report(1.0), report(factor), (), judging.RATIO)
        return sum(one.word == "regressed" for one in verdicts)

    assert regressed(1.0) < 3
    assert regressed(1.3) > 180


def test_a_row_of_ours_that_vanished_and_a_stage_that_failed_are_regressions(compared) -> None:
    less = cpu_report()
    less["stages"]["engine"]["rows"] = [
        r for r in less["stages"]["engine"]["rows"] if r["contestant"] != "ZeRO 1"
    ]
    status, out, _ = compared(cpu_report(), less)
    assert status == 1 and "Only in A, a regression:\n- engine: an update: tiny" in out
    assert compared(less, cpu_report())[0] == 0
    broken = cpu_report()
    broken["stages"]["engine"]["failed"] = ["it ended"]
    status, out, _ = compared(cpu_report(), broken)
    assert status == 1 and "Failed in B and not in A, a regression:\n- engine: it ended" in out
    assert compared(broken, broken)[0] == 0


def test_a_row_that_lost_its_reference_is_a_regression(compared) -> None:
    without = changed(
        cpu_report(),
        stage="engine",
        contestant="ZeRO 0",
        times_faster=None,
        ratio_quartiles=None,
        block_ratios=None,
    )
    status, out, _ = compared(cpu_report(), without)
    assert status == 1 and "1 only in A" in out
    status, out, _ = compared(without, without)
    assert status == 0 and "1 without a ratio in either" in out


def test_rows_of_a_series_are_told_apart_by_their_size(compared) -> None:
    slower = cpu_report()
    for row in slower["stages"]["scaling"]["rows"]:
        if row["at"] == {"batch": 8} and row["contestant"] == "cpu":
            row["times_faster"] /= 1.5
    status, out, _ = compared(cpu_report(), slower)
    assert status == 1 and "1 regressed" in out and ", batch 8: cpu" in out


def test_one_round_has_no_noise_of_its_own(compared) -> None:
    single = cpu_report()
    for stage in single["stages"].values():
        for row in stage.get("rows", []):
            row["block_ratios"] = None
    status, out, _ = compared(single, single)
    assert status == 0 and "No row says how much it wavers" in out
    assert compared(single, changed(single, stage="ops", contestant="cpu", case=POOL, factor=1.06))[0] == 1


def test_milliseconds_are_judged_on_request_and_never_of_unlike_machines(compared) -> None:
    busy = cpu_report()
    for stage in busy["stages"].values():
        for row in stage.get("rows", []):
            row["milliseconds"] |= {
                name: 1.4 * row["milliseconds"][name] for name in ("median", "low", "high")
            }
    assert compared(cpu_report(), busy)[0] == 0
    status, out, _ = compared(cpu_report(), busy, "--absolute")
    assert status == 1 and "A, ms" in out
    other = copy.deepcopy(busy)
    other["machine"]["threads"] = 4
    status, out, err = compared(cpu_report(), other, "--absolute")
    assert (status, out) == (2, "") and "unlike machines" in err
    status, out, _ = compared(cpu_report(), other)
    assert status == 0 and "unlike machines" in out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no JSON (line 1"),
        ("[]", "it is no object with names"),
        ('{"machine": {"device": "x"}, "rows": []}', "it has no 'name'"),
        ('{"machine": 1, "name": "x", "date": "", "command": "", "stages": {}}', "its machine has no device"),
        (
            '{"machine": {"device": "x"}, "name": "", "date": "", "command": "", '
            '"stages": {"ops": {"rows": [1]}}}',
            "a row of its stage 'ops' has no 'case'",
        ),
        (None, "there is no file"),
    ],
)
def test_what_is_no_report_is_said_in_one_sentence(
    text: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(cpu_report()))
    if text is not None:
        bad.write_text(text)
    assert compare_results.main([str(good), str(bad)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("compare_results: ") and sentence in err
    assert err.count("\n") == 1 and str(bad) in err


def test_reports_without_a_common_row_cannot_be_compared(compared) -> None:
    status, out, err = compared(cpu_report(), gpu_report())
    assert (status, out) == (2, "") and "no row of ours in common" in err


def test_a_further_run_is_neither_of_the_two_nor_of_another_machine(
    compared, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    status, _, err = compared(cpu_report(), cpu_report(), more=(gpu_report(),))
    assert status == 2 and "of another machine than A" in err
    same = str(tmp_path / "0.json")
    assert compare_results.main([same, str(tmp_path / "1.json"), "--more-of-a", same]) == 2
    assert "is A or B itself" in capsys.readouterr().err
