"""The page of a benchmark report: every row on it, slopes beside the work's, failures and what is missing."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from tests.benchmark_reports import FAST, POOL, contest, cpu_report, gpu_report, parts

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import case_tables
import results_page
import scaling_tables
import written

PLOTS = {"roofline": "here-roofline.svg", "step": "", "speedups": "here-speedups.svg"}


def page(report: dict) -> str:
    return results_page.page(report, PLOTS)


def cells(page: str, first: str) -> list[list[str]]:
    """The lines of tables that begin with `first`."""
    found = [line for line in page.splitlines() if line.startswith(f"| {first} |")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in found]


def test_the_page_says_where_when_and_how() -> None:
    text = page(cpu_report())
    assert text.startswith("# Benchmarks on Intel(R) Xeon(R) Processor, x86_64, 2 threads\n")
    assert (
        "2026-11-23, revision `0123abc`, by `make bench`: threads 2, python 3.11.7, torch 2.13.0+cpu" in text
    )
    assert "a copy reads and writes 25.3 GB/s; products in float32 reach 380 GFLOP/s" in text
    assert "](here-roofline.svg)" in text and "](here-speedups.svg)" in text and "]()" not in text


def test_every_row_is_on_the_page() -> None:
    report, text = cpu_report(), page(cpu_report())
    for name, stage in report["stages"].items():
        for row in stage.get("rows", []):
            case = row["case"]
            assert f"**{case}**" in text
            if row["role"] != "part" and not row["at"]:
                medians = [line[1] for line in cells(text, row["contestant"])]
                assert written.milliseconds(row["milliseconds"]["median"]) in medians, (
                    name,
                    case,
                    row["contestant"],
                )


def test_a_line_has_ratio_rate_memory_shares_and_how_it_was_checked() -> None:
    text = page(cpu_report())
    part = text.partition(f"**{POOL}: forward + backward**")[2].partition("\n**")[0]
    assert cells(part, "cpu") == [
        ["cpu", "8.37", "8.20 to 8.62", "3.67 (3.56 to 3.82)", "33", "44 %", "bit-equal to the reference"]
    ]
    assert cells(part, "reference")[0][3] == "1"
    assert cells(part, "copy of as many bytes")[0][3:] == ["", "33", "", ""]
    assert "of a product's FLOP/s" not in part  # no arithmetic: no column
    part = text.partition("**one pair: r50, frozen norm, float32")[2].partition("\n**")[0]
    assert cells(part, FAST)[0][3] == "252"  # the 0.99 quantile


def test_parts_of_a_step_stand_beside_each_other() -> None:
    text = page(cpu_report()).partition("Its parts")[2].partition("\n**")[0]
    assert cells(text, "Transformer") == [["Transformer", "863", "536", "1.61"]]
    assert cells(text, "their sum") == [["their sum", "1,470", "960", "1.53"]]
    assert cells(text, "the whole, measured as one") == [
        ["the whole, measured as one", "1,480", "961", "1.54"]
    ]


def test_parts_of_which_a_contestant_lacks_some() -> None:
    rows = parts("step: x", "reference", "float32", (4.0, 3.0, 2.0, 1.0))
    rows += parts("step: x", FAST, "float32", (2.0, 3.0, 2.0, 1.0))[:2]
    text = "\n".join(case_tables.of_stage(rows))
    assert cells(text, "backbone") == [["backbone", "4.00", "2.00", "2.00"]]
    assert cells(text, "Transformer") == [["Transformer", "2.00", "", ""]]
    assert cells(text, "their sum") == [["their sum", "10.0", "", ""]]
    assert "measured as one" not in text


def test_failures_and_what_was_not_measured_have_their_sentences() -> None:
    text = page(cpu_report())
    failed = text.partition("## What failed")[2].partition("##")[0]
    assert "- ops: pool_gather [8, 2048, 24, 32], K = 100, float16: AssertionError" in failed
    missing = text.partition("## Not measured")[2].partition("##")[0]
    assert missing.strip().splitlines() == [
        "- decoding: DALI on a GPU: no GPU here.",
        "- scaling, search: Anything on a GPU: torch sees none here.",
    ]
    assert "| search | 0 | not measured, see below |" in text and "**failed**, see below" in text


def test_texts_of_a_failure_are_no_markup() -> None:
    report = cpu_report()
    report["stages"]["ops"]["failed"] = ["<class 'int'>\nin two lines", " ", "x" * 2000]
    failed = page(report).partition("## What failed")[2].partition("##")[0].strip().splitlines()
    assert failed[0] == "- ops: &lt;class 'int'> in two lines"
    assert len(failed) == 2 and len(failed[1]) < 700


def test_a_gpus_stages_are_on_its_page() -> None:
    text = page(gpu_report())
    assert "| cuda | built for 9.0 |" in text
    assert "| pixel_embed | triton | failed: off by 0.1 \\| 2 |" in text
    assert "120 passed, 3 skipped." in text
    assert "| pool_gather_forward | channels_last torch.bfloat16 | [2048] | block 256, warps 4 |" in text
    goals = text.partition("## Goals")[2].partition("##")[0]
    assert "| times eager | times compiled |" in goals and "| cuda | 0.935 | 6.13 | 1.677 |" in goals
    assert "floor" not in goals  # a column that is empty throughout
    assert "- step: stopped after 150 s" in text


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_slope_is_the_power(power: float) -> None:
    sizes = [1, 2, 8, 32]
    assert scaling_tables.slope(sizes, [3 * size**power for size in sizes]) == pytest.approx(power, abs=1e-12)


def test_the_slope_is_the_least_squares_line() -> None:
    """By hand: log2 sizes 0, 1, 2 and log2 values 0, 0, 2 have the slope (-1 * 0 + 1 * 2) / 2 = 1."""
    assert scaling_tables.slope([1, 2, 4], [1, 1, 4]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("sizes", "values"), [([4], [1]), ([4, 4], [1, 2]), ([], []), ([1, 2], [0, 1]), ([1, 2], [None, 1])]
)
def test_no_slope_without_two_sizes_and_positive_values(sizes: list, values: list) -> None:
    assert scaling_tables.slope(sizes, values) is None


def test_cost_that_grows_faster_than_work_is_named() -> None:
    text = page(cpu_report()).partition("## How cost grows")[2]
    remarks = [line for line in text.splitlines() if "grows faster" in line]
    assert len(remarks) == 1
    assert remarks[0].startswith(
        "| reference | 1.45 | 1.00 (flops) | **grows faster than its flops** by 0.45"
    )
    assert "| cpu | 0.96 | 1.00 (bytes) |" in text


def test_work_that_grows_with_the_cost_is_no_remark() -> None:
    """Attention: FLOPs with the square of the length, bytes with the length."""
    rows = []
    for size in (1, 2, 4):
        work = {"flops": 10 * size**2, "bytes": 100 * size}
        rows += contest(
            "scaling", "attention", [("reference", "reference", 1.0 * size**2)], at={"length": size}, **work
        )
    (growth,) = scaling_tables.growths(rows)
    assert (growth.time, growth.work, growth.of) == (pytest.approx(2), pytest.approx(2), "flops")
    assert growth.remark == ""


def test_a_series_of_one_size_has_no_slope_and_uncounted_work_is_said_to_be() -> None:
    one = contest("scaling", "x", [("reference", "reference", 1.0)], at={"batch": 1})
    text = "\n".join(scaling_tables.of_stage(one))
    assert "| 1 | 1.00 |" in text and "One size alone has no slope." in text
    two = one + contest("scaling", "x", [("reference", "reference", 3.0)], at={"batch": 2})
    (growth,) = scaling_tables.growths(two)
    assert growth.work is None and growth.remark == "the work was not counted"
    assert growth.time == pytest.approx(math.log2(3))


def test_a_report_of_nothing_and_one_of_empty_stages_still_have_a_page() -> None:
    nothing = {**cpu_report(), "stages": {}, "ceilings": None}
    text = page(nothing)
    assert "No stage was run." in text and "Ceilings were not measured" in text
    empty = {**cpu_report(), "stages": {"ops": {"seconds": 1.0, "rows": []}, "novel": {"notes": ["A note."]}}}
    text = page(empty)
    assert "| ops | 1 | done |" in text and "## The ops" not in text and "## Novel\n\nA note." in text


def test_a_row_with_nothing_but_what_it_needs_is_on_the_page() -> None:
    row = {"case": "x | y", "contestant": "a | b", "role": "ours", "milliseconds": {"median": 0.00042}}
    text = page({**cpu_report(), "stages": {"ops": {"seconds": 1.0, "rows": [row]}}})
    assert "| a \\| b | 0.000 |" not in text and "| a \\| b | 0.00042 |" in text


def test_the_page_and_its_plots_are_written_by_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    report = tmp_path / "x.json"
    report.write_text(json.dumps(cpu_report()))
    assert results_page.main([str(report)]) == 0
    stem = "intel-xeon-avx512-2-threads-2026-11-23"
    names = {f"{stem}.md", *(f"{stem}-{plot}.svg" for plot in ("roofline", "step", "speedups"))}
    assert {path.name for path in tmp_path.iterdir()} == names | {"x.json"}
    assert set(capsys.readouterr().out.split()) == {str(tmp_path / name) for name in names}
    text = (tmp_path / f"{stem}.md").read_text()
    assert all(f"]({name})" in text for name in names if name.endswith(".svg"))
    assert results_page.main([str(tmp_path / "none.json")]) == 2
