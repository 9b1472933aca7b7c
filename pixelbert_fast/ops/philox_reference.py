"""Philox 4x32-10, the counter-based random generator behind `sample_positions`, in plain PyTorch.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A block
cipher of ten rounds turns a 128-bit counter and a 64-bit key into four words of 32 bits, so any
backend can compute any word by itself, in any order.
"""

from __future__ import annotations

from torch import Tensor

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def multiply_wide(multiplier: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of ``multiplier * word``; int64 tensors that hold unsigned 32-bit words.

    The 64-bit product may wrap to a negative int64. Its bits are right all the same, and the mask
    after the arithmetic shift removes the sign that the shift drags in.
    """
    product = word * multiplier
    return (product >> 32) & WORD, product & WORD


def philox_4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four output words for each counter and key (int64 tensors of unsigned 32-bit values, broadcast)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = multiply_wide(MULTIPLIERS[0], c0)
        high1, low1 = multiply_wide(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + KEY_INCREMENTS[0]) & WORD, (k1 + KEY_INCREMENTS[1]) & WORD
    return c0, c1, c2, c3
