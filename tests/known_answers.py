"""Answers that every backend, on every device, must give for ever, or old seeds lose their meaning."""

from __future__ import annotations

# (valid grid, grid, count, seed, key), and the places that `sample_positions` draws.
PLACES = [
    (((3, 4), (3, 4), 5, 0, 0), [0, 2, 8, 9, 10]),
    (((6, 6), (6, 6), 8, 1234567890123, 7), [7, 9, 18, 21, 27, 29, 32, 34]),
    (((2, 3), (5, 9), 4, -1, 1099511627779), [1, 2, 10, 11]),
    (((12, 17), (12, 17), 10, 42, -5), [39, 44, 74, 118, 119, 126, 168, 181, 190, 202]),
    (((2, 2), (4, 4), 6, 3, 1), [0, 1, 4, 5, -1, -1]),
]

# Counter, key and output of Philox 4x32-10, as published with Random123 (its file kat_vectors).
PHILOX = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
