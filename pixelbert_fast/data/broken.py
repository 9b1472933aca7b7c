"""Images that cannot be decoded: told once each, counted, and too many of them end the run."""

import logging

from pixelbert_fast.errors import UserError

logger = logging.getLogger(__name__)


class BrokenImages:
    """The images of a split that were found broken so far.

    names: the key of each row, a column of the split; None: rows are told by number. limit: the share of an
    epoch's images that may be broken; a single one never ends a run, unless the limit is 0.
    """

    def __init__(self, names=None, limit: float = 0.01):
        self._names = names
        self._limit = limit
        self._reasons: dict[int, str] = {}
        self._shown: int | None = None
        self._met: set[int] = set()

    def __len__(self) -> int:
        return len(self._reasons)

    def __contains__(self, row: int) -> bool:
        return row in self._reasons

    def begin_epoch(self, shown: int) -> None:
        """The next images to be met are those of an epoch in which this process reads `shown` of them."""
        self._shown, self._met = shown, set()

    def add(self, row: int, reason: str) -> None:
        """A broken image; told when it is met for the first time."""
        if row not in self._reasons:
            self._reasons[row] = reason
            logger.warning("image %s cannot be decoded: %s", self.name(row), reason)

    def met(self, row: int) -> None:
        """One of the epoch's own images is broken. Raises UserError where these are more than the limit."""
        self._met.add(row)
        if self._shown is None or len(self._met) <= max(self._limit > 0, self._limit * self._shown):
            return
        raise UserError(
            f"{len(self._met)} of the {self._shown} images of an epoch cannot be decoded, more than the share"
            f" of {self._limit:g} that data.broken_limit allows; the last was {self.name(row)}"
            f" ({self._reasons[row]}): mend the set, or raise the limit"
        )

    def name(self, row: int) -> str:
        """An image as messages call it."""
        return f"in row {row}" if self._names is None else f"{self._names[row]['key']!r} (row {row})"
