"""Line charts: their axes, what long and broken series become, and the SVG."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pixelbert_fast.visualize.axes import linear_axis, log_axis, number, span_axis
from pixelbert_fast.visualize.curves import STYLES, Series, line_chart, thinned

finite = st.floats(-1e12, 1e12)


def parsed(figure: str) -> ElementTree.Element:
    return ElementTree.fromstring(figure)


def plot(figure: str) -> ElementTree.Element:
    return next(one for one in parsed(figure).iter("svg") if one.get("class") == "plot")


def lines(figure: str) -> list[ElementTree.Element]:
    return list(plot(figure).iter("g"))


def path(group: ElementTree.Element) -> str:
    return next(one for one in group.iter("path") if one.get("class") == "l").get("d")


def corners(d: str) -> list[tuple[float, float]]:
    return [tuple(map(float, one.split())) for one in re.findall(r"[ML]([^ML]+)", d)]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((0.0, 10.0), (0, 2, 4, 6, 8, 10)),
        ((0.13, 0.98), (0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ((-3.0, 7.0), (-4, -2, 0, 2, 4, 6, 8)),
        ((5.0, 5.0), (2, 3, 4, 5, 6, 7, 8)),
        ((0.0, 0.0), (-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6)),
        ((900.0, 3100.0), (500, 1000, 1500, 2000, 2500, 3000, 3500)),
    ],
)
def test_linear_ticks_are_round(values: tuple[float, float], ticks: tuple[float, ...]) -> None:
    assert linear_axis(values).ticks == pytest.approx(ticks, abs=1e-12)


@given(st.lists(finite, min_size=1, max_size=20), st.booleans())
@example([0.0, 5e-324], False)
def test_a_linear_axis_holds_its_values(values: list[float], zero: bool) -> None:
    axis = linear_axis(values, zero=zero)
    assert axis.least < axis.most
    assert 2 <= len(axis.ticks) <= 12
    # The ends are rounded to the step's own digits, a part in 1e9 of which may be missing.
    assert all(-1e-6 <= axis.place(one) <= 1 + 1e-6 for one in values)
    if zero and min(values) > 0:
        assert axis.least == 0 or axis.least < min(values)


@given(st.lists(st.floats(1e-30, 1e30), min_size=1, max_size=20))
def test_a_log_axis_holds_its_values(values: list[float]) -> None:
    axis = log_axis(values)
    assert 0 < axis.least < axis.most
    assert 2 <= len(axis.ticks) <= 12
    assert all(-1e-6 <= axis.place(one) <= 1 + 1e-6 for one in values)


def test_log_ticks() -> None:
    assert log_axis([3e-5, 1e-3]).ticks == pytest.approx((2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3))
    assert log_axis([0.003, 6.0]).ticks == pytest.approx((1e-3, 1e-2, 0.1, 1, 10))
    assert len(log_axis([1e-20, 1e20]).ticks) <= 8
    with pytest.raises(ValueError, match="no place for 0"):
        log_axis([0.0, 1.0])


def test_the_axis_of_steps_ends_with_the_run() -> None:
    axis = span_axis([50, 7500])
    assert (axis.least, axis.most) == (50, 7500)
    assert axis.ticks == (2000, 4000, 6000)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.25, "0.25"), (1e-5, "1e-5"), (2.5e-4, "2.5e-4"), (0.001, "0.001"), (2500, "2500"),
        (12_000, "12k"), (1_500_000, "1.5M"), (-20_000, "-20k"), (1e9, "1e9"), (0.3, "0.3"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_thinning_keeps_spikes_ends_and_gaps() -> None:
    xs = list(range(100_000))
    ys = [math.sin(x / 3000) for x in xs]
    ys[54_321], ys[777], ys[30_000] = 50.0, -50.0, math.nan
    few_xs, few_ys = thinned(xs, ys, bins=100)
    assert len(few_xs) <= 4 * 100
    assert (54_321, 50.0) in zip(few_xs, few_ys, strict=True)
    assert (777, -50.0) in zip(few_xs, few_ys, strict=True)
    assert (few_xs[0], few_xs[-1]) == (0, 99_999)
    assert sum(map(math.isnan, few_ys)) == 1
    assert few_xs == sorted(few_xs)


def test_a_short_series_is_drawn_whole() -> None:
    assert thinned([1, 2, 9], [3.0, math.nan, 4.0])[0] == [1, 2, 9]


def test_a_chart_of_many_gaps_stays_small() -> None:
    xs = list(range(50_000))
    figure = line_chart([Series("a", xs, [1.0 if x % 2 else math.nan for x in xs])], title="t")
    assert len(figure) < 60_000


def test_a_gap_parts_the_line() -> None:
    figure = line_chart([Series("loss", [0, 1, 2, 3, 4], [1, 2, math.nan, 2, 1])], title="Loss")
    (group,) = lines(figure)
    assert path(group).count("M") == 2
    assert len(corners(path(group))) == 4
    for missing in (None, math.inf):
        assert path(
            lines(line_chart([Series("loss", [0, 1, 2, 3, 4], [1, 2, missing, 2, 1])], title="L"))[0]
        ) == path(group)


def test_points_lie_where_the_axes_say() -> None:
    figure = line_chart([Series("a", [0, 50, 100], [0.0, 0.5, 1.0])], title="t")
    svg = plot(figure)
    left, right, least_x, most_x = map(float, svg.get("data-x").split())
    bottom, top, least_y, most_y = map(float, svg.get("data-y").split())
    assert (least_x, most_x, least_y, most_y) == (0, 100, 0, 1)
    found = corners(path(lines(figure)[0]))
    assert found == [(left, bottom), ((left + right) / 2, (top + bottom) / 2), (right, top)]


def test_a_log_chart_leaves_out_what_has_no_logarithm() -> None:
    figure = line_chart([Series("lr", [0, 1, 2, 3], [0.0, 1e-4, 1e-3, -1.0])], title="t", log=True)
    assert plot(figure).get("data-scale") == "log"
    assert len(corners(path(lines(figure)[0]))) == 2


def test_a_log_chart_of_zeros_shows_them() -> None:
    figure = line_chart([Series("frozen", [0, 1, 2], [0.0, 0.0, None])], title="t", log=True)
    assert plot(figure).get("data-scale") == "linear"
    assert len(corners(path(lines(figure)[0]))) == 2


def test_series_differ_in_more_than_colour() -> None:
    figure = line_chart([Series(str(n), [0, 1], [n, n + 1]) for n in range(STYLES)], title="t")
    shapes = set()
    for group in lines(figure):
        marks = {one.get("d") for one in group.iter("path") if one.get("class") == "m"}
        assert len(marks) == 1
        shapes |= marks
    assert len(shapes) == STYLES
    assert [group.get("class") for group in lines(figure)] == [f"s{n}" for n in range(STYLES)]


def test_nothing_to_draw_is_said() -> None:
    assert "No finite value" in line_chart([Series("a", [1], [math.nan])], title="t")
    assert "No finite value" in line_chart([], title="t")


def test_one_point_is_a_mark() -> None:
    (group,) = lines(line_chart([Series("a", [7], [3.0])], title="t"))
    assert [one for one in group.iter("path") if one.get("class") == "m"]


def test_names_are_escaped() -> None:
    hostile = "</svg><script>alert(1)</script>\"'&"
    figure = line_chart([Series(hostile, [0, 1], [1, 2])], title=hostile, x=hostile, y=hostile)
    assert "<script" not in figure
    assert {one.get("data-name") for one in lines(figure)} == {hostile}


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 xs and 1 ys"):
        line_chart([Series("a", [0, 1], [1])], title="t")
