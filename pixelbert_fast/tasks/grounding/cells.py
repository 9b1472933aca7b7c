"""The cells of the pooled grid that a model reads an image as, against the boxes of things in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Box = Sequence[float]
"""x0, y0, x1, y1 in pixels."""

# Of the sums and differences of shares.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Grid:
    """Where the cells of an image lie, in pixels of the image as the model reads it.

    Cell (r, c) is the square of side `window` that begins at (r * window, c * window), as far as it lies on
    the image; what lies behind the last row and column is in no cell.

    Attributes:
        rows, columns: of the pooled grid.
        window: pixels.
        height, width: of the image, resized.
    """

    rows: int
    columns: int
    window: int
    height: int
    width: int

    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows, float64 ``[rows + 1]``, and of the columns."""
        down = np.minimum(np.arange(self.rows + 1) * self.window, self.height)
        across = np.minimum(np.arange(self.columns + 1) * self.window, self.width)
        return down.astype(np.float64), across.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Target:
    """What of a grid's cells belongs to something.

    Attributes:
        cells: bool ``[rows, columns]``: where a map's maximum is a hit.
        share: float64 ``[rows, columns]``, the share of each cell's area that belongs to it.
    """

    cells: np.ndarray
    share: np.ndarray

    @property
    def touched(self) -> np.ndarray:
        """bool ``[rows, columns]``: the cells of which any part belongs to it.

        Their centres lie at most half a window outside it.
        """
        return self.share > _ROUNDING


def target_of(boxes: Sequence[Box], grid: Grid) -> Target:
    """Of things, in pixels of the image as the model reads it; boxes may overlap.

    A cell is a thing's where its centre lies in the box. A box so narrow that it holds no centre has the one
    cell it covers most of (the first of equals).
    """
    cells = np.zeros((grid.rows, grid.columns), dtype=bool)
    for box in boxes:
        own = _centres_in(box, grid)
        if not own.any():
            covered = _covered([box], grid)
            if covered.any():
                own.flat[covered.argmax()] = True
        cells |= own
    return Target(cells, _covered(boxes, grid))


def without(target: Target) -> Target:
    """All of the grid that does not belong to `target`: of every thing, the ground."""
    return Target(~target.cells, 1 - target.share)


def scaled(box: Box, stored: tuple[int, int], read: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box of an image of (height, width) `stored` in the same image resized to `read`."""
    down, across = read[0] / stored[0], read[1] / stored[1]
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _centres_in(box: Box, grid: Grid) -> np.ndarray:
    """bool ``[rows, columns]``; an edge of the box at its left or top is inside it."""
    down, across = ((edges[1:] + edges[:-1]) / 2 for edges in grid.edges())
    x0, y0, x1, y1 = box
    return ((down >= y0) & (down < y1))[:, None] & ((across >= x0) & (across < x1))[None]


def _covered(boxes: Sequence[Box], grid: Grid) -> np.ndarray:
    """float64 ``[rows, columns]``: the share of each cell that lies in any box.

    Exact: the edges of cells and boxes cut the image into rectangles that lie in each of them whole or not
    at all.
    """
    owner, middles, lengths = [], [], []
    for edges, low in zip(grid.edges(), (1, 0), strict=True):
        sides = [side for box in boxes for side in (box[low], box[low + 2])]
        cuts = np.unique(np.concatenate([edges, np.clip(sides, edges[0], edges[-1])]))
        middles.append((cuts[1:] + cuts[:-1]) / 2)
        lengths.append(np.diff(cuts))
        owner.append(np.searchsorted(edges, middles[-1]) - 1)
    inside = np.zeros((len(middles[0]), len(middles[1])), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        rows, columns = (middles[0] > y0) & (middles[0] < y1), (middles[1] > x0) & (middles[1] < x1)
        inside |= rows[:, None] & columns[None]
    areas = np.zeros((grid.rows, grid.columns))
    np.add.at(areas, (owner[0][:, None], owner[1][None]), np.outer(*lengths) * inside)
    return areas / np.outer(*map(np.diff, grid.edges()))
