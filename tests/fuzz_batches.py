"""Batches of random cases for the fuzzers: one seed, one batch, and the smallest case that is found wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.strategies import SearchStrategy


def judged_batch(
    cases: SearchStrategy[Any], judge: Callable[[Any], str], *, seed: int, examples: int
) -> Counter[str]:
    """Let `judge` name the outcome of `examples` cases drawn from `seed`; outcomes counted.

    Raises:
        Whatever `judge` raised on the smallest case that was found wrong.
    """
    counted: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(cases)
    def batch(case: Any) -> None:
        counted[judge(case)] += 1

    batch()
    return counted
