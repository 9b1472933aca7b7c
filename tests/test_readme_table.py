"""The README's table of performance: what it says of a report, and that it is of the newest stored one."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest

from tests.benchmark_reports import FAST, changed, cpu_report, gpu_report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import headlines
import readme_table
import stored
from stored import UserError


@pytest.fixture
def stored_as(tmp_path: Path):
    def store(report: dict, name: str = "here.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(report))
        return path

    return store


def lines_of(block: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines() if line[:2] == "| "
    ]


def test_the_readme_holds_the_table_of_the_newest_stored_reports() -> None:
    if stored.newest("cpu") is None:
        pytest.skip("no report of a CPU is stored: `make bench` makes one")
    text = (stored.ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_table.within(text) == readme_table.of_files(readme_table.newest()), (
        "run: python benchmarks/readme_table.py --write"
    )


def test_every_line_has_its_contestants_shapes_and_ratio_and_the_rest_stands_above(stored_as) -> None:
    block = readme_table.of_files([stored_as(cpu_report())])
    above, *lines = lines_of(block)
    assert above == readme_table.HEADS
    found = {line[0]: line for line in lines}
    assert found["`pool_gather`, forward and backward"] == [
        "`pool_gather`, forward and backward",
        "pool_gather [8, 2048, 24, 32], K = 100, float32, channels_last: forward + backward",
        "reference: 30.8 ms",
        "cpu: 8.37 ms",
        "3.67 (3.56 to 3.82)",
        "reference, compiled 0.55",
    ]
    assert found["scoring pairs for retrieval"][2:4] == [
        "forward a pair: 12.2 pairs/s",
        "matrix float32: 158 pairs/s",
    ]
    assert found["a step of pre-training, bfloat16"][3] == f"{FAST}: 427 ms"
    shared = "Intel(R) Xeon(R) Processor", "torch 2.13.0+cpu", "`make bench`", "2026-11-23", "`0123abc`"
    assert all(text in block for text in shared)


def test_all_of_ours_are_listed_the_slower_ones_too(stored_as) -> None:
    lines = lines_of(readme_table.of_files([stored_as(cpu_report())]))
    place = next(
        place for place, line in enumerate(lines) if line[0] == "latency of one pair beside ViLT-B/32"
    )
    assert [line[3] for line in lines[place : place + 2]] == [
        f"{FAST} r50, 800 x 1066: 650 ms",
        f"{FAST} r50, 384 x 512: 196 ms",
    ]
    assert lines[place][4].startswith("0.25 (") and lines[place + 1][0] == ""


def test_what_is_missing_is_listed_as_not_measured(stored_as) -> None:
    report = cpu_report()
    del report["stages"]["retrieval"]
    report["stages"]["optimizer"]["rows"] = []
    block = readme_table.of_files([stored_as(report)])
    listed = " ".join(block.partition("Not measured:")[2].split())
    assert (
        "- a training step beside ViLT-B/32; scoring pairs for retrieval; the optimiser's update." in listed
    )
    assert "- decoding: DALI on a GPU: no GPU here." in listed
    assert "Anything on a GPU: no report of one is stored" in listed
    both = readme_table.of_files([stored_as(report), stored_as(gpu_report(), "gpu.json")])
    assert "no report of one is stored" not in both
    assert "- GPU, `sample_positions`;" in both and "- CPU, a training step" in both


def test_an_empty_report_has_no_table_and_a_case_without_reference_no_ratio(stored_as) -> None:
    empty = {**cpu_report(), "stages": {}}
    block = readme_table.of_files([stored_as(empty)])
    assert "No case of it was measured." in block and not lines_of(block)
    alone = changed(
        cpu_report(), stage="decoding", contestant="plain", times_faster=None, ratio_quartiles=None
    )
    rows = alone["stages"]["decoding"]["rows"]
    alone["stages"]["decoding"]["rows"] = [row for row in rows if row["role"] != "reference"]
    line = next(
        line for line in lines_of(readme_table.of_files([stored_as(alone)])) if line[0] == "decoding images"
    )
    assert line[2:] == ["", "plain: 206 images/s", "", ""]


def test_a_case_of_several_sequences_an_image_is_not_taken_for_the_plain_one() -> None:
    report = cpu_report()
    row = copy.deepcopy(report["stages"]["ops"]["rows"][2:6])
    for one in row:
        one["case"] = one["case"].replace("K = 100", "K = 100, 4 sequences an image")
    report["stages"]["ops"]["rows"][:0] = row
    headline = next(one for one in headlines.HEADLINES if one.title == "`pool_gather`, forward")
    assert ["sequences an image" in rows[0]["case"] for rows in headlines.found(report, headline)] == [False]


def test_written_between_the_markers_and_nowhere_else(stored_as, tmp_path: Path, monkeypatch) -> None:
    readme = tmp_path / "README.md"
    monkeypatch.setattr(readme_table, "README", readme)
    before, after = "# Title\n\ntext\n\n", "\n\nmore\n"
    readme.write_text(f"{before}{readme_table.BEGIN}\nold\n{readme_table.END}{after}")
    path = stored_as(cpu_report())
    assert readme_table.main(["--write", str(path)]) == 0
    text = readme.read_text()
    assert text.startswith(before + readme_table.BEGIN) and text.endswith(readme_table.END + after)
    assert readme_table.within(text) == readme_table.of_files([path]) and "old" not in text
    assert readme_table.main(["--write", str(path)]) == 0 and readme.read_text() == text
    prose = [line for line in readme_table.within(text).splitlines() if not line.startswith("|")]
    assert max(map(len, prose)) <= 120


@pytest.mark.parametrize(
    "text",
    ["no markers", f"{readme_table.END}\n{readme_table.BEGIN}", 2 * (readme_table.BEGIN + readme_table.END)],
)
def test_a_readme_without_its_two_markers_is_said_to_be(text: str) -> None:
    with pytest.raises(UserError, match="needs one line"):
        readme_table.within(text)


def test_the_newest_report_of_a_kind_is_found_among_other_files(tmp_path: Path) -> None:
    assert stored.newest("cpu", tmp_path) is None
    (tmp_path / "other.json").write_text('{"rows": []}')
    (tmp_path / "broken.json").write_text("{")
    rehearsal = {
        **cpu_report(),
        "command": "python benchmarks/gpu_report.py --device cpu",
        "date": "2027-01-01",
    }
    for name, report in {
        "b": cpu_report(),
        "a": {**cpu_report(), "date": "2026-12-01"},
        "g": gpu_report(),
        "r": rehearsal,
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    assert stored.newest("cpu", tmp_path) == tmp_path / "a.json"
    assert stored.newest("gpu", tmp_path) == tmp_path / "g.json"
