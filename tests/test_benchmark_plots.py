"""The plots of a benchmark report: where their marks lie, what they leave out, and that they stand alone."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmark_reports import COPY_RATE, FAST, contest, cpu_report, gpu_report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import draw_roofline
import draw_speedups
import draw_step
import drawing
import plots

SVG = "{http://www.w3.org/2000/svg}"
MOST_BYTES = 60_000


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in parsed(svg).iter(f"{SVG}text")]


def said(svg: str) -> dict[str, ElementTree.Element]:
    """What is said when a mark or bar is pointed at, with the element."""
    found = {}
    for node in parsed(svg).iter():
        title = node.find(f"{SVG}title")
        if title is not None and node.tag != f"{SVG}svg":
            found[title.text] = node
    return found


def ops_only(rows: list[dict]) -> dict:
    return {**cpu_report(), "stages": {"ops": {"seconds": 1.0, "rows": rows}}}


@pytest.mark.parametrize("report", [cpu_report(), gpu_report()], ids=["cpu", "gpu"])
def test_every_plot_stands_alone_and_is_small(report: dict) -> None:
    for name, svg in plots.draw(report).items():
        root = parsed(svg)
        assert root.get("aria-label") and root.find(f"{SVG}title").text, name
        assert len(svg.encode()) < MOST_BYTES
        assert "prefers-color-scheme: dark" in svg
        used = set(re.findall(r"url\(#(\w+)\)", svg))
        assert used == {node.get("id") for node in root.iter(f"{SVG}pattern")}
        assert not re.findall(r"<script|href=|url\((?!#)|https?://(?!www.w3.org)", svg)
        width, height = (float(root.get(side)) for side in ("width", "height"))
        for node in root.iter(f"{SVG}text"):
            assert 0 <= float(node.get("x")) <= width and 0 <= float(node.get("y")) <= height


def test_only_what_was_measured_is_drawn() -> None:
    assert set(plots.draw(cpu_report())) == {"roofline", "step", "speedups"}
    assert set(plots.draw(gpu_report())) == {"roofline", "speedups"}
    assert plots.draw({**cpu_report(), "stages": {}}) == {}


def test_a_mark_of_the_roofline_lies_at_its_rate() -> None:
    """An op at the rate of the copy lies on the copy's line, one at the matrix rate on that roof."""
    moved = int(COPY_RATE * 1e9 * 2e-3)
    rows = contest("ops", "moving", [("cpu", "ours", 2.0)], bytes=moved, flops=0)
    rows += contest("ops", "computing", [("cpu", "ours", 2.0)], bytes=2_000_000, flops=int(380e9 * 2e-3))
    svg = draw_roofline.draw(ops_only(rows))
    marks = {text: node.get("transform") for text, node in said(svg).items()}
    heights = {text: float(place.rstrip(")").split()[1]) for text, place in marks.items()}
    roofs = [node for node in parsed(svg).iter(f"{SVG}line") if node.get("class") == "roof"]
    flat = [float(node.get("y1")) for node in roofs if node.get("y1") == node.get("y2")]
    assert heights["cpu: 25.3 GB/s"] == pytest.approx(flat[0], abs=0.2)  # places have one digit
    assert heights["cpu: 380 GFLOP/s"] == pytest.approx(flat[1], abs=0.2)


def test_the_copys_slope_ends_where_products_begin() -> None:
    svg = draw_roofline.draw(cpu_report())
    (slope,) = [
        node
        for node in parsed(svg).iter(f"{SVG}line")
        if node.get("class") == "roof" and node.get("y1") != node.get("y2")
    ]
    ends = {
        (node.get("x1"), node.get("y1"))
        for node in parsed(svg).iter(f"{SVG}line")
        if node.get("class") == "roof"
    }
    assert (slope.get("x2"), slope.get("y2")) in ends


def test_the_roofline_says_what_it_leaves_out_and_works_without_ceilings() -> None:
    svg = draw_roofline.draw(cpu_report())
    assert "sample_positions." in " ".join(texts(svg)) and "1 MiB" in " ".join(texts(svg))
    bare = draw_roofline.draw({**cpu_report(), "ceilings": {}})
    assert bare is not None and not any("a copy:" in text or "products in" in text for text in texts(bare))
    small = contest("ops", "x", [("cpu", "ours", 1.0)], bytes=10, flops=0)
    assert draw_roofline.draw(ops_only(small)) is None


def test_stems_of_equal_places_stand_apart_and_near_them() -> None:
    places = {"a": 100.0, "b": 100.0, "c": 101.0, "d": 300.0}
    found = draw_roofline.spread(places, 0, 320)
    order = sorted(found.values())
    assert min(later - one for one, later in pairwise(order)) >= 20
    assert max(abs(found[case] - place) for case, place in places.items()) <= draw_roofline.FARTHEST
    crowd = {str(place): 100.0 for place in range(30)}
    found = draw_roofline.spread(crowd, 0, 320)
    assert len(set(found.values())) == 30
    assert max(abs(x - 100.0) for x in found.values()) <= draw_roofline.FARTHEST


def test_bars_of_a_step_are_as_long_as_their_parts() -> None:
    svg = draw_step.draw(cpu_report())
    bars = {text: node for text, node in said(svg).items() if node.tag == f"{SVG}rect"}
    lengths = {text: float(node.get("width")) for text, node in bars.items()}
    assert lengths["Transformer: 863 ms"] / lengths["backbone: 459 ms"] == pytest.approx(
        863.1 / 458.7, rel=1e-2
    )
    fills = {text.partition(":")[0]: node.get("fill") for text, node in bars.items()}
    assert len(set(fills.values())) == 6  # four parts and two floors, told apart by patterns
    start = float(bars["backbone: 459 ms"].get("x"))
    assert float(bars["pixel embedding: 13.5 ms"].get("x")) == pytest.approx(
        start + lengths["backbone: 459 ms"], abs=0.2
    )
    assert any("the convolutions alone 329, the matrix products alone 422" in text for text in texts(svg))


def test_a_step_whose_contestants_lack_parts_or_floors_is_drawn() -> None:
    report = cpu_report()
    rows = [
        row for row in report["stages"]["step"]["rows"] if row["role"] != "floor" and row["whole"] != FAST
    ]
    report["stages"]["step"]["rows"] = rows
    svg = draw_step.draw(report)
    assert FAST in texts(svg) and "floors" not in texts(svg)
    report["stages"]["step"]["rows"] = [row for row in rows if row["role"] == "part"]
    assert draw_step.draw(report) is not None
    report["stages"]["step"]["rows"] = [row for row in rows if row["role"] != "part"]
    assert draw_step.draw(report) is None


def test_speed_ups_begin_at_one_and_have_their_quartiles() -> None:
    rows = contest(
        "ops", "x", [("reference", "reference", 4.0), ("cpu", "ours", 1.0), ("slow", "peer", 16.0)]
    )
    svg = draw_speedups.draw(ops_only(rows))
    bars = [node for node in parsed(svg).iter(f"{SVG}rect") if (node.get("fill") or "").startswith("url")]
    (one,) = {float(n.get("x1")) for n in parsed(svg).iter(f"{SVG}line") if n.get("class") == "thick"}
    faster, slower = bars
    assert float(faster.get("x")) == pytest.approx(one, abs=0.1)
    assert float(slower.get("x")) + float(slower.get("width")) == pytest.approx(one, abs=0.2)
    assert float(faster.get("width")) == pytest.approx(float(slower.get("width")), abs=0.2)  # 4 and 1 / 4
    assert faster.get("fill") != slower.get("fill")
    assert "4.00 (3.88 to 4.16)" in texts(svg)


def test_every_case_but_series_has_its_speed_ups() -> None:
    svg = draw_speedups.draw(cpu_report())
    shown = " ".join(texts(svg))
    for stage in ("retrieval", "decoding", "optimizer", "engine"):
        assert f"{stage}: " in shown
    assert "8 sequences" not in shown


def test_ratios_that_cannot_be_drawn_are_left_out() -> None:
    rows = contest("ops", "x", [("reference", "reference", 4.0), ("cpu", "ours", 1.0)])
    rows[1] |= {"ratio_quartiles": None}
    assert "4.00" in texts(draw_speedups.draw(ops_only(rows)))
    rows[1] |= {"times_faster": 0.0}
    assert draw_speedups.draw(ops_only(rows)) is None


def test_so_many_cases_that_the_file_would_be_large_are_cut_and_counted() -> None:
    rows = []
    for place in range(120):
        rows += contest(
            "ops", f"case {place}", [("reference", "reference", 4.0), ("cpu", "ours", 1.0 + place)]
        )
    svg = draw_speedups.draw(ops_only(rows))
    assert len(svg.encode()) < MOST_BYTES
    shown = sum(text.startswith("case ") for text in texts(svg))
    assert 60 < shown < 120
    assert f"Cases that stand in the tables only: {120 - shown}." in " ".join(texts(svg))


def test_hostile_names_stay_text() -> None:
    rows = contest(
        "ops", '</svg><script>"&', [("reference", "reference", 4.0), ("<b>", "ours", 1.0)], bytes=1 << 24
    )
    for svg in plots.draw(ops_only(rows)).values():
        assert "<script" not in svg and '</svg><script>"&' in " ".join(texts(svg))


def test_contestants_are_told_apart_by_shape() -> None:
    names = [
        ("reference", "reference"),
        ("cuda", "ours"),
        ("triton", "ours"),
        ("compiled", "peer"),
        ("autotuned", "peer"),
    ]
    found = drawing.looks([{"contestant": who, "role": role} for who, role in names])
    assert len(set(found.values())) == len(names)
