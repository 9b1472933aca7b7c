"""The paper's size rule by hand-computed sizes and by its defining properties; the resize by its filter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_fast.data.resizing import resize, target_size
from pixelbert_fast.errors import UserError


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((480, 640), (800, 1333), (800, 1066)),  # PAPER: a 4:3 photo
        ((640, 480), (800, 1333), (1066, 800)),
        ((480, 640), (600, 1000), (600, 800)),  # the ResNeXt-152 sizes
        ((300, 500), (800, 1333), (800, 1333)),  # 1333.3 after its fraction is dropped: the cap is not passed
        ((240, 640), (800, 1333), (499, 1333)),  # 2133 would pass: the long side becomes 1333
        ((640, 240), (800, 1333), (1333, 499)),
        ((1000, 1000), (800, 1333), (800, 800)),
        ((10, 20), (800, 1333), (666, 1333)),  # small images grow
        ((1, 5000), (800, 1333), (1, 1333)),
        ((500, 500), (500, 500), (500, 500)),
    ],
)
def test_sizes_worked_out_by_hand(size, options, expected):
    assert target_size(*size, *options) == expected


@pytest.mark.parametrize(
    ("size", "divisor", "expected"),
    [
        ((480, 640), 32, (800, 1056)),  # 1066 / 32 = 33.3
        (
            (300, 500),
            64,
            (832, 1344),
        ),  # 800 / 64 = 12.5 goes up; 1333 / 64 = 20.8 passes the cap, as documented
        ((1, 5000), 32, (32, 1344)),  # never less than one multiple
    ],
)
def test_both_sides_are_rounded_to_the_nearest_multiple(size, divisor, expected):
    assert target_size(*size, 800, 1333, divisor) == expected


def test_very_narrow_images_are_made_as_thick_as_the_model_needs():
    assert target_size(3, 1000, 800, 1333, 1, least_side=33) == (33, 1333)
    assert target_size(1000, 3, 800, 1333, 1, least_side=33) == (1333, 33)
    assert target_size(3, 1000, 800, 1333, 16, least_side=33) == (48, 1328)
    assert target_size(480, 640, 800, 1333, 1, least_side=33) == (800, 1066)
    with pytest.raises(UserError, match=r"short_side \(32\) is less than least_side \(33\)"):
        target_size(480, 640, 32, 64, 1, least_side=33)


sides = st.integers(1, 6000)


@settings(deadline=None)
@given(height=sides, width=sides, short=st.integers(1, 1000), spare=st.integers(0, 1000))
def test_the_rule_holds_for_any_size(height, width, short, spare):
    long = short + spare
    result = target_size(height, width, short, long)
    assert max(result) <= long
    assert min(result) == short or max(result) == long
    assert target_size(width, height, short, long) == result[::-1]
    # A dropped fraction is the only change of proportion, whichever side decided the scale; one pixel stays.
    scales = (short / min(height, width), long / max(height, width))
    assert (
        any(
            all(-1e-9 <= side * scale - new < 1 for side, new in zip((height, width), result, strict=True))
            for scale in scales
        )
        or min(result) == 1
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 5, 800, 1333), "0 x 5"),
        ((5, 5, 0, 1333), "short_side"),
        ((5, 5, 800, 700), "long_side"),
        ((5, 5, 800.0, 1333), "short_side"),
        ((5, 5, 800, 1333, -32), "size_divisor"),
        ((5, 5, True, 1333), "short_side"),
    ],
)
def test_impossible_sizes_are_named(arguments, named):
    with pytest.raises(UserError, match=named):
        target_size(*arguments)


def test_shrinking_averages_instead_of_dropping_pixels():
    # Columns of one pixel, black and white: a filter without antialiasing would return them, or one of them.
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, (16, 16))
    assert small.shape == (16, 16, 3)
    assert small.dtype == np.uint8
    assert np.abs(small.astype(int) - 127.5).max() < 20


def test_enlarging_is_bilinear_between_pixel_centres():
    # Two pixels to four: centres lie at -0.25, 0.25, 0.75, 1.25 of the old grid.
    row = np.array([[[0, 100, 200], [100, 200, 0]]], dtype=np.uint8)
    assert resize(row, (1, 4)).tolist() == [[[0, 100, 200], [25, 125, 150], [75, 175, 50], [100, 200, 0]]]


def test_the_same_size_costs_nothing():
    rgb = np.zeros((5, 7, 3), dtype=np.uint8)
    assert resize(rgb, (5, 7)) is rgb
