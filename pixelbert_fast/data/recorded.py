"""Sizes that a set records and its pictures do not have: found when an image is read first, told, counted."""

import logging

import numpy as np

from pixelbert_fast.data.images import read_header
from pixelbert_fast.data.orientation import swaps_sides
from pixelbert_fast.errors import UserError

logger = logging.getLogger(__name__)


class RecordedSizes:
    """Whether the recorded sizes of a split are those of its pictures, by their headers, each read once.

    An image is resized by what is recorded, since batches are planned by it: where that is wrong its
    proportions change and nothing else happens. `recorded`: integers ``[N, 2]``, height and width. names: the
    key of each row, a column of the split; None: rows are told by number.
    """

    def __init__(self, recorded: np.ndarray, names=None):
        self._recorded = recorded
        self._names = names
        self._looked = np.zeros(len(recorded), dtype=bool)
        self._wrong = 0

    def __len__(self) -> int:
        """How many were wrong so far."""
        return self._wrong

    def check(self, row: int, encoded: bytes) -> None:
        """Look at an image. The first that is wrong is told by its key, then the 10th, the 100th, ..."""
        if self._looked[row]:
            return
        self._looked[row] = True
        try:
            header = read_header(encoded)
        except UserError:  # the decoder says so
            return
        found = (header.height, header.width)
        height, width = (int(side) for side in self._recorded[row])
        if swaps_sides(header.orientation):
            found = found[::-1]
        # What is no JPEG may be turned as well, which its header does not say.
        sure = header.file_format in ("JPEG", "MPO")
        if found == (height, width) or (not sure and found == (width, height)):
            return
        self._wrong += 1
        if 10 ** (len(str(self._wrong)) - 1) == self._wrong:
            name = f"in row {row}" if self._names is None else f"{self._names[row]['key']!r} (row {row})"
            logger.warning(
                "image %s is recorded as %d x %d pixels and is %d x %d (%d recorded wrongly so far): "
                "its proportions are changed; build the set again",
                name, height, width, *found, self._wrong,
            )  # fmt: skip
