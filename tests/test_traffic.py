"""What `plan` says that an update sends is what DeepSpeed hands to torch.distributed."""

from __future__ import annotations

import json

import pytest

from pixelbert_fast.training import plan_memory
from tests.test_deepspeed_engine import launched
from tests.traffic_ranks import ACCUMULATION

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    done = launched(2, "traffic_ranks.py")
    for status, _, errors in done:
        assert status == 0, errors[-2000:]
    return [json.loads(line) for line in done[0][1].splitlines() if line.startswith("{")]


def one_way(sent: dict[str, int]) -> int:
    """Bytes through reduce-scatters and gathers; a reduce to one owner moves as much as its share of one."""
    return sum(size * (2 if name == "all_reduce" else 1) for name, size in sent.items())


def test_collectives_are_those_that_deepspeed_calls(found):
    for record in found[:5]:
        weights, stage = record["weights"], record["stage"]
        counts = plan_memory.Parameters(weights, weights, 0, 0, 0)
        told = sum(plan_memory.collectives(counts, stage, ACCUMULATION))
        # Pieces are padded to be of one length, and norms and flags of a few bytes are reduced besides: on
        # this model of 110,000 weights, not 1 %. Another collective would be a seventh at least.
        assert one_way(record["sent"]) == pytest.approx(told, rel=0.02), record


def test_reduces_to_the_owners_are_what_the_paper_of_zero_counts(found):
    sent, weights = found[5]["sent"], found[5]["weights"]
    assert one_way(sent) == pytest.approx((ACCUMULATION + 1) * 4 * weights, rel=0.02), sent
