"""The rows of the benchmarks: ratios, quartiles, noise, shares of ceilings; and the slopes of series."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import rows_table
import scaling_tables
from ceilings import Ceilings
from contest import Timing, take_turns
from rows import FLOOR, OURS, PART, PEER, REFERENCE, Contest, Work

SLOW = tuple(float(10 + number % 4) for number in range(16))
FAST = tuple(each / (2 + number % 2) for number, each in enumerate(SLOW))
ROLES = {"plain": REFERENCE, "other": PEER, "copy": FLOOR, "backbone": PART}


def contest(**changes) -> Contest:
    given = {"work": Work(4000, 6000), "items": 8, "item": "images", "checked": "equal", "roles": ROLES}
    return Contest("ops", "a case", "float32", **(given | changes))


def rows_of(timings: dict[str, tuple[float, ...]], found: Contest | None = None, **how) -> dict:
    timed = {who: Timing.of(each) for who, each in timings.items()}
    return {row.contestant: row for row in (found or contest()).rows(timed, **how)}


def test_quartiles_and_fastest_are_those_of_the_samples() -> None:
    found = Timing.of([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (found.low, found.median, found.high, found.fastest, found.runs) == (2.0, 3.0, 4.0, 1.0, 5)
    assert found.samples == (4.0, 1.0, 3.0, 2.0, 5.0)
    assert "samples" not in found.as_dict()


def test_the_last_hundredth_is_told_from_a_hundred_runs_on() -> None:
    assert "p99" not in Timing.of([1.0] * 98 + [9.0]).as_dict()
    found = Timing.of([float(number) for number in range(101)]).as_dict()
    assert found["p99"] == pytest.approx(99.0)  # of 0 .. 100, by definition


def test_runs_take_turns_and_the_first_two_rounds_do_not_count() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    found = take_turns(runs, "cpu", rounds=7, seconds=60.0)
    assert order == ["a", "b"] * 9
    assert all(timing.runs == 7 for timing in found.values())


def test_no_round_is_begun_after_the_time_but_five_are_run() -> None:
    assert take_turns({"a": lambda: None}, "cpu", rounds=50, seconds=0.0)["a"].runs == 5


def test_ratios_are_of_medians_within_rounds_and_in_blocks() -> None:
    found = rows_of({"plain": SLOW, "ours": FAST})
    ours = found["ours"]
    assert ours.times_faster == pytest.approx(found["plain"].timing.median / ours.timing.median)
    # Within a round it is 2 or 3, each in half of them.
    assert ours.ratio_quartiles == pytest.approx((2.0, 3.0))
    # Every block holds the same four rounds: 10, 11, 12, 13 against 5, 11/3, 6, 13/3.
    assert ours.block_ratios == pytest.approx((11.5 / ((5 + 13 / 3) / 2),) * 4)
    assert found["plain"].times_faster == 1.0 and found["plain"].ratio_quartiles == (1.0, 1.0)


def test_a_machine_that_slows_down_is_seen_in_the_blocks() -> None:
    found = rows_of({"plain": (8.0,) * 16, "ours": (4.0,) * 12 + (8.0,) * 4})
    assert found["ours"].block_ratios == (2.0, 2.0, 2.0, 1.0)


def test_few_rounds_have_no_blocks() -> None:
    assert rows_of({"plain": SLOW[:7], "ours": FAST[:7]})["ours"].block_ratios is None


def test_of_unequal_work_rates_are_compared() -> None:
    found = rows_of({"plain": (10.0,) * 8, "ours": (20.0,) * 8}, items={"plain": 1, "ours": 8})
    # Twice as long for eight times as much.
    assert found["ours"].times_faster == pytest.approx(4.0)
    assert found["ours"].ratio_quartiles == pytest.approx((4.0, 4.0))
    assert found["ours"].block_ratios == pytest.approx((4.0,) * 4)
    assert found["plain"].as_dict()["per_second"] == pytest.approx(100.0)
    assert found["ours"].as_dict()["per_second"] == pytest.approx(400.0)


def test_roles_decide_what_is_compared_and_checked() -> None:
    found = rows_of(dict.fromkeys(("plain", "ours", "other", "copy", "backbone"), SLOW))
    assert [row.role for row in found.values()] == [REFERENCE, OURS, PEER, FLOOR, PART]
    for name in ("copy", "backbone"):
        row = found[name].as_dict(Ceilings(1e9, {"float32": 1e9}))
        assert row["times_faster"] is row["checked"] is row["per_second"] is None
    assert found["other"].times_faster == 1.0 and found["other"].checked == "equal"
    assert found["plain"].checked is None
    assert found["backbone"].work == Work() and found["copy"].work == Work()


def test_without_a_reference_nothing_is_compared() -> None:
    assert rows_of({"ours": FAST})["ours"].times_faster is None


def test_memory_and_place_of_a_series_are_kept() -> None:
    found = rows_of({"plain": SLOW}, contest(at={"batch": 4}), memory={"plain": 77})["plain"].as_dict()
    assert found["peak_bytes"] == 77 and found["at"] == {"batch": 4}


def test_shares_of_ceilings() -> None:
    machine = Ceilings(8e6, {"float32": 4e6})
    row = rows_of({"plain": (1.0,) * 5})["plain"]
    found = row.as_dict(machine)
    # 4000 bytes and 6000 operations in a millisecond.
    assert found["of_copy"] == pytest.approx(0.5) and found["of_matrix"] == pytest.approx(1.5)
    assert row.as_dict()["of_copy"] is None
    assert machine.share_of_matrix(6000, 1e-3, "float64") is None
    assert machine.share_of_copy(None, 1e-3) is None
    stored = Ceilings(25e9, {"float32": 4e11})
    assert Ceilings.of(stored.as_dict()) == stored


def test_a_script_prints_its_cases_and_its_own_columns() -> None:
    rows = [row.as_dict() for row in rows_of({"plain": SLOW, "ours": FAST, "copy": FAST}).values()]
    text = rows_table.tables(rows, {"letters": lambda row: str(len(row["contestant"]))})
    assert text.startswith("**a case**\n") and text.endswith("| copy | 4 |")
    assert "images/s" in text and text.count("\n| ours |") == 2


def point(size: int, milliseconds: float, **changes) -> dict:
    given = {
        "case": "a series",
        "contestant": "ours",
        "at": {"batch": size},
        "milliseconds": {"median": milliseconds},
        "flops": 7 * size**3,
        "bytes": 9 * size,
    }
    return given | changes


def test_slopes_of_power_laws_are_their_exponents() -> None:
    sizes = (2, 4, 8, 32)
    rows = [point(size, 0.3 * size**1.5) for size in sizes]
    rows += [point(size, 5.0, contestant="reference", flops=None) for size in sizes]
    rows += [point(size, 1 / size, contestant="uncounted", flops=0, bytes=None) for size in sizes]
    (((case, size), series),) = scaling_tables.series_of(rows).items()
    assert (case, size) == ("a series", "batch")
    found = {each.contestant: each for each in scaling_tables.growths(series)}
    assert found["ours"].time == pytest.approx(1.5) and found["ours"].work == pytest.approx(3)
    assert found["reference"].time == pytest.approx(0.0, abs=1e-12)
    assert (found["reference"].work, found["reference"].of) == (pytest.approx(1.0), "bytes")
    assert found["uncounted"].time == pytest.approx(-1.0)
    assert found["uncounted"].work is None


def test_what_is_no_series_has_no_slope() -> None:
    rows = [point(2, 1.0), point(2, 2.0), point(4, 1.0, at=None)]
    assert not [
        growth
        for series in scaling_tables.series_of(rows).values()
        for growth in scaling_tables.growths(series)
    ]
