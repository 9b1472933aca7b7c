"""The downstream tasks under DeepSpeed in one or two processes, against plain PyTorch in the same process.

`test_deepspeed_tasks` starts it: `deepspeed_tasks.py FOLDER`, with built sets in FOLDER. Prints JSON lines.
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path

import torch

from pixelbert_fast.tasks import make_task
from pixelbert_fast.training import deepspeed_engine
from pixelbert_fast.training.deepspeed_config import DeepSpeedOptions
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer, parameter_groups
from pixelbert_fast.training.plain_engine import PlainEngine
from tests import toy_pairs, vqa_sets
from tests.engine_cases import CLIP, OPTIONS, relative, whole
from tests.test_retrieval_task import settings

STEPS = 4
# Every weight is divided, and gathered where it is read: without a threshold no small one stays whole.
DIVIDED = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}


def configuration(folder: Path, name: str, output: Path):
    """`name`: a task, or of retrieval what it keeps of the images."""
    if name == "vqa":
        return vqa_sets.config(folder / "vqa", output=str(output))
    if name == "nlvr2":
        return toy_pairs.config(folder / "pairs", output=str(output), training={"images_per_batch": 8})
    retrieval = {"negatives": 6, "hardest": 2, "cache": name}
    if name == "trained":
        retrieval |= {"cache": "none", "freeze_backbone": False}
    return settings(folder / "scenes", output, retrieval=retrieval)


def optimizer_of(task) -> TwoAlgorithmOptimizer:
    return TwoAlgorithmOptimizer(parameter_groups(task.model, task.parameter_groups(task.model), OPTIONS))


def train(task, engine, ranks, world: int) -> None:
    """Updates; each adds up the batches of `ranks`, as many as the engine accumulates."""
    engine.module.train()
    own = [list(islice(task.batches(0, rank, world), STEPS)) for rank in ranks]
    for step in zip(*own, strict=True):
        for batch in step:
            with engine.autocast():
                loss, _ = task.loss(engine.model, batch)
            engine.backward(loss)
            done = engine.step()
        assert done


def evaluated(task, engine, first: bool) -> dict | None:
    with engine.gathered() as module:
        return task.evaluate(module, limit=8) if first else None


def check(folder: Path, ranks, name: str, stage: int) -> None:
    output = folder / f"{name}-{stage}-{ranks.world}"
    # Both read what the first of them keeps of the images.
    task = make_task(configuration(folder, name, output / "run"))
    expected_of = make_task(configuration(folder, name, output / "run"))
    before = {key: value.detach().clone() for key, value in task.model.state_dict().items()}
    plain = PlainEngine(
        expected_of.model,
        optimizer_of(expected_of),
        device=torch.device("cpu"),
        accumulation=ranks.world,
        clip_norm=CLIP,
    )
    train(expected_of, plain, range(ranks.world), ranks.world)
    options = DeepSpeedOptions(
        images_per_batch=4, clip_norm=CLIP, zero_stage=stage, extra=DIVIDED if stage == 3 else {}
    )
    engine = deepspeed_engine.DeepSpeedEngine(task.model, optimizer_of(task), ranks=ranks, options=options)
    train(task, engine, [ranks.rank], ranks.world)
    trained = {key for own in expected_of.parameter_groups(plain.module).values() for key, _ in own}
    found, expected = whole(engine), whole(plain)
    # What another process saw moves its batch norm's statistics alone: see zero_equality.py.
    names = [key for key, _ in plain.module.named_parameters()]
    told = {"check": name, "stage": stage, "world": ranks.world, "rank": ranks.rank}
    if ranks.first:
        one, other = ({key: state[key] for key in names} for state in (found, expected))
        told["from_reference"] = relative(one, other)
        told["moved"] = relative({key: found[key] for key in trained}, {key: before[key] for key in trained})
        told["frozen_same"] = all(torch.equal(found[key], before[key]) for key in names if key not in trained)
        told["frozen"] = len(names) - len(trained)
        told["evaluated"] = evaluated(expected_of, plain, True)
    told["evaluated_here"] = evaluated(task, engine, ranks.first)
    print(json.dumps(told), flush=True)
    engine.close()


CASES = {
    1: [
        *((kind, stage) for kind in ("none", "embeddings", "c5", "trained") for stage in (0, 3)),
        ("vqa", 3),
        ("nlvr2", 3),
    ],
    2: [("embeddings", 0), ("embeddings", 3), ("c5", 3), ("trained", 3), ("vqa", 2), ("nlvr2", 2)],
}


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    ranks = deepspeed_engine.join()
    for name, stage in CASES[ranks.world]:
        check(folder, ranks, name, stage)
    deepspeed_engine.leave()


if __name__ == "__main__":
    main()
