"""What this machine can do at best, measured in the same run as what is compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from contest import copy_bandwidth, take_turns

# Of a copy, beyond every cache; of a CPU's copy as large as the tensors that the ops move.
COPY_BYTES = {"cuda": 1 << 30, "cpu": 64 << 20}
# Rows, inner size and columns of products like those of the models, and a large square one.
PRODUCTS = {
    "cuda": ((8192, 8192, 8192), (16384, 768, 3072)),
    "cpu": ((2048, 2048, 2048), (1024, 768, 3072)),
}
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Ceilings:
    """Bytes a second that a copy reads and writes, and operations a second of a matrix product by dtype."""

    copy: float
    matrix: dict[str, float]

    def share_of_copy(self, moved: int | None, seconds: float) -> float | None:
        """How near `moved` bytes in so long are to a copy's rate; None where there are none."""
        return moved / seconds / self.copy if moved else None

    def share_of_matrix(self, flops: int | None, seconds: float, dtype: str) -> float | None:
        """How near `flops` in so long are to a product's rate; None: not known."""
        return flops / seconds / self.matrix[dtype] if flops and dtype in self.matrix else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "copy_gigabytes_per_second": round(self.copy / 1e9, 2),
            "matrix_gigaflops_per_second": {name: round(rate / 1e9, 1) for name, rate in self.matrix.items()},
        }

    @classmethod
    def of(cls, report: dict[str, Any]) -> Ceilings:
        """Those of a report; the other way of `as_dict`."""
        matrix = report["matrix_gigaflops_per_second"]
        return cls(report["copy_gigabytes_per_second"] * 1e9, {n: rate * 1e9 for n, rate in matrix.items()})


def measure(device: str, *, rounds: int = 30, seconds: float = 4.0) -> Ceilings:
    """The rates of the median run; of several products the best.

    The median, since the contestants are judged by theirs: a rate met once in thirty is no ceiling of it.
    """
    kind = torch.device(device).type
    size = COPY_BYTES[kind]
    timing = take_turns({"copy": copy_bandwidth(device, size)}, device, rounds=rounds, seconds=seconds)
    matrix = {}
    for name in DTYPES:
        rates = []
        for rows, inner, columns in PRODUCTS[kind]:
            left = torch.randn(rows, inner, device=device).to(getattr(torch, name))
            right = torch.randn(inner, columns, device=device).to(getattr(torch, name))
            runs = {"product": lambda left=left, right=right: left @ right}
            took = take_turns(runs, device, rounds=rounds, seconds=seconds)["product"].median
            rates.append(2 * rows * inner * columns / took * 1e3)
        matrix[name] = max(rates)
    return Ceilings(2 * size / timing["copy"].median * 1e3, matrix)
