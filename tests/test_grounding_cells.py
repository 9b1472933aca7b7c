"""Boxes against the cells of a grid, and what hand-made maps score."""

import numpy as np
import pytest

from pixelbert_fast.tasks.grounding.cells import Grid, scaled, target_of, without
from pixelbert_fast.tasks.grounding.scores import hits, shares

GRID = Grid(rows=3, columns=4, window=10, height=30, width=40)


def cells(*places):
    found = np.zeros((GRID.rows, GRID.columns), dtype=bool)
    for place in places:
        found[place] = True
    return found


def test_a_box_of_one_cell():
    target = target_of([(10, 20, 20, 30)], GRID)
    np.testing.assert_array_equal(target.cells, cells((2, 1)))
    np.testing.assert_array_equal(target.touched, cells((2, 1)))
    np.testing.assert_array_equal(target.share, cells((2, 1)).astype(float))


def test_a_cell_is_a_box_s_where_its_centre_lies_in_it():
    """Centres are at 5, 15, 25 and 35; the left edge is inside, the right one is not."""
    target = target_of([(5, 0, 25, 10)], GRID)
    np.testing.assert_array_equal(target.cells, cells((0, 0), (0, 1)))
    np.testing.assert_array_equal(target.touched, cells((0, 0), (0, 1), (0, 2)))
    np.testing.assert_array_equal(target.share[0], [0.5, 1, 0.5, 0])
    assert not target.share[1:].any()


def test_boxes_that_overlap_count_once():
    target = target_of([(0, 0, 10, 6), (0, 4, 10, 10), (30, 20, 35, 30)], GRID)
    assert target.share[0, 0] == 1
    assert target.share[2, 3] == 0.5
    assert target.share.sum() == 1.5


def test_a_box_without_a_centre_has_the_cell_it_covers_most_of():
    target = target_of([(16, 1, 24, 9)], GRID)  # 4 of its 8 columns in each of two cells
    np.testing.assert_array_equal(target.cells, cells((0, 1)))
    target = target_of([(17, 1, 24, 9)], GRID)
    np.testing.assert_array_equal(target.cells, cells((0, 2)))
    # Beside another box, which has centres, it has its own cell still.
    both = target_of([(17, 1, 24, 9), (0, 0, 10, 10)], GRID)
    np.testing.assert_array_equal(both.cells, cells((0, 0), (0, 2)))


def test_the_ground_is_the_rest():
    things = target_of([(5, 0, 25, 10)], GRID)
    ground = without(things)
    np.testing.assert_array_equal(ground.cells, ~things.cells)
    np.testing.assert_array_equal(ground.share, 1 - things.share)
    np.testing.assert_array_equal(ground.touched, ~cells((0, 1)))


def test_the_last_cells_end_with_the_image():
    """A model of stride 8 reads 39 x 55 pixels as 5 x 7, pooled 2 x 3: 16 a cell, the last column of 7 pixels
    in none; and 9 x 9 as one cell of 9."""
    grid = Grid(rows=2, columns=3, window=16, height=39, width=55)
    assert not target_of([(48, 0, 55, 39)], grid).touched.any()
    assert target_of([(48, 0, 55, 39)], grid).cells.sum() == 0
    small = target_of([(0, 0, 9, 4.5)], Grid(rows=1, columns=1, window=16, height=9, width=9))
    assert small.share[0, 0] == 0.5


@pytest.mark.parametrize("seed", range(8))
def test_shares_are_counts_of_pixels(seed):
    """Of boxes on whole pixels, painted."""
    rng = np.random.default_rng(seed)
    grid = Grid(
        rows=4, columns=3, window=7, height=int(rng.integers(22, 29)), width=int(rng.integers(21, 30))
    )
    painted = np.zeros((grid.height, grid.width), dtype=bool)
    boxes = []
    for _ in range(rng.integers(1, 5)):
        x0, y0 = rng.integers(0, grid.width - 2), rng.integers(0, grid.height - 2)
        x1, y1 = rng.integers(x0 + 1, grid.width), rng.integers(y0 + 1, grid.height)
        boxes.append((x0, y0, x1, y1))
        painted[y0:y1, x0:x1] = True
    found = target_of(boxes, grid)
    for row in range(grid.rows):
        for column in range(grid.columns):
            own = painted[row * 7 : row * 7 + 7, column * 7 : column * 7 + 7]
            # Both are quotients of whole numbers below 50, one of them summed up from parts.
            assert found.share[row, column] == pytest.approx(own.mean(), abs=1e-12)
            assert found.touched[row, column] == own.any()


def test_a_box_goes_with_its_image():
    assert scaled((10, 20, 30, 40), stored=(100, 200), read=(50, 400)) == (20, 10, 60, 20)


MAP = np.array([[0.1, 0.0, 0.0, 0.3], [0.0, 0.2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("box", "hit", "mass"),
    [
        ((30, 0, 40, 10), 1, 0.5),  # the maximum
        ((0, 0, 10, 10), 0, 1 / 6),
        ((33, 0, 40, 10), 1, 0.35),  # its centre, and 0.7 of its area
        ((36, 0, 40, 10), 1, 0.2),  # no centre: its cell all the same
        ((0, 0, 40, 30), 1, 1),
        ((0, 20, 40, 30), 0, 0),
        ((10, 10, 20, 20), 0, 1 / 3),
    ],
)
def test_what_a_map_scores(box, hit, mass):
    target = target_of([box], GRID)
    assert hits(MAP.ravel(), target.cells.ravel()) == hit
    # The map's numbers have no exact binary form.
    assert shares(MAP.ravel(), target.share.ravel()) == pytest.approx(mass, abs=1e-12)


def test_of_several_maxima_each_counts_its_part():
    target = cells((0, 0), (0, 1)).ravel()
    even, two = np.full(12, 0.05), np.zeros(12)
    two[[1, 7]] = 0.4
    np.testing.assert_allclose(hits(np.stack([even, two]), target), [2 / 12, 0.5])
    np.testing.assert_allclose(shares(np.stack([even, two]), target.astype(float)), [2 / 12, 0.5])


def test_a_map_of_zeros_is_an_even_one():
    target = cells((0, 0), (0, 1), (2, 3)).ravel()
    assert hits(np.zeros(12), target) == shares(np.zeros(12), target.astype(float)) == 0.25


def test_targets_may_be_means_of_several():
    """As of the permutation baseline: half of the targets have cell 3."""
    mean = np.zeros(12)
    mean[3], mean[0] = 0.5, 1
    assert hits(MAP.ravel(), mean) == 0.5
    assert shares(MAP.ravel(), mean) == pytest.approx((0.1 + 0.15) / 0.6)
