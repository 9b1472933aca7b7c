"""Fine-tuning under DeepSpeed computes what plain PyTorch does: each task, and all that retrieval keeps."""

from __future__ import annotations

import json

import pytest

from pixelbert_fast.data.build import build_set, make_builder
from tests import toy_pairs, vqa_sets
from tests.deepspeed_tasks import CASES
from tests.test_deepspeed_engine import launched


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    build_set(make_builder("scenes", images=120, seed=1, size=48), folder / "scenes")
    vqa_sets.build(folder / "vqa")
    toy_pairs.build(folder / "pairs")
    return folder


@pytest.mark.parametrize("world", [1, 2])
def test_every_task_equals_plain_pytorch(folder, world):
    """Retrieval's pass without gradients reads weights that ZeRO 3 has divided and must gather for it."""
    done = launched(world, "deepspeed_tasks.py", str(folder))
    for status, _, errors in done:
        assert status == 0, errors[-3000:]
    found = [json.loads(line) for _, out, _ in done for line in out.splitlines() if line.startswith("{")]
    assert {(one["check"], one["stage"]) for one in found} == set(CASES[world])
    for one in (one for one in found if one["rank"] == 0):
        # As in test_deepspeed_engine.py: sums in another order, over a few updates.
        assert one["from_reference"] < 1e-5, one
        assert one["moved"] > 1e-3, one
        frozen = one["check"] in ("none", "embeddings", "c5")
        assert one["frozen_same"] and (one["frozen"] > 0) == frozen, one
        if world == 1 or frozen:  # a trained batch norm's statistics are those of the first process's batches
            expected, here = flat(one["evaluated"]), flat(one["evaluated_here"])
            assert here == pytest.approx(expected, abs=1e-5), one


def flat(figures, place: str = "") -> dict:
    """The figures of an evaluation, whatever they are nested in."""
    if not isinstance(figures, dict):
        return {place: figures}
    return {key: one for name, own in figures.items() for key, one in flat(own, f"{place}/{name}").items()}
