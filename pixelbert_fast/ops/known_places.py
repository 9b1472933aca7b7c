"""Stored answers of `sample_positions`: what every backend gives on every device, for ever.

Were they to change, old seeds would lose their meaning.
"""

from __future__ import annotations

KNOWN_PLACES: list[tuple[tuple[tuple[int, int], tuple[int, int], int, int, int], list[int]]] = [
    (((3, 4), (3, 4), 5, 0, 0), [0, 2, 8, 9, 10]),
    (((6, 6), (6, 6), 8, 1234567890123, 7), [7, 9, 18, 21, 27, 29, 32, 34]),
    (((2, 3), (5, 9), 4, -1, 1099511627779), [1, 2, 10, 11]),
    (((12, 17), (12, 17), 10, 42, -5), [39, 44, 74, 118, 119, 126, 168, 181, 190, 202]),
    (((2, 2), (4, 4), 6, 3, 1), [0, 1, 4, 5, -1, -1]),
]
"""``((valid grid, grid, count, seed, key), places)`` of one row each."""
