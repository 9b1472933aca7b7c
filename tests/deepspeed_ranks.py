"""What DeepSpeed computes in one or two processes, against plain PyTorch in the same process.

`test_deepspeed_engine` starts it, first with two processes, then with one: `deepspeed_ranks.py FOLDER`. The
states written on the way lie in FOLDER and are read under other stages and in other numbers of processes.
Prints JSON lines.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import torch
from torch import nn

from pixelbert_fast.errors import UserError
from pixelbert_fast.training import deepspeed_engine
from pixelbert_fast.training.checkpoint import StateFolder
from pixelbert_fast.training.deepspeed_config import DeepSpeedOptions
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer, parameter_groups
from pixelbert_fast.training.plain_engine import PlainEngine
from pixelbert_fast.training.ranks import Ranks
from tests.engine_cases import build, relative, train, whole
from tests.engine_cases import deepspeed_engine as engine_of_real_model
from tests.engine_cases import plain_engine as plain_engine_of_real_model

CLIP = 0.5
OPTIONS = {
    "backbone": {"algorithm": "sgd", "lr": 0.05, "weight_decay": 5e-4, "momentum": 0.9},
    "transformer": {"algorithm": "adamw", "lr": 3e-3, "weight_decay": 1e-2},
}
STAGES = (0, 1, 2, 3)
SAVED, LAST = 3, 5
# How many batches an update adds up, over all processes: two in each of two processes, or four in one.
SUMMED = 4


class Net(nn.Module):
    """Batch norm, weights in channels_last, a frozen layer, and one that every other update leaves unused."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
        self.frozen = nn.Linear(24, 24).requires_grad_(False)
        self.head = nn.Linear(24, 3)
        self.other = nn.Linear(24, 3)
        self.to(memory_format=torch.channels_last)  # as FastPixelBERT's backbone is

    def forward(self, pixels, both: bool):
        hidden = self.frozen(self.backbone(pixels))
        return self.head(hidden) + self.other(hidden) if both else self.head(hidden)


def optimizer_of(model):
    named = list(model.named_parameters())
    parts = {
        "backbone": [pair for pair in named if pair[0].startswith("backbone")],
        "transformer": [pair for pair in named if not pair[0].startswith("backbone")],
    }
    return TwoAlgorithmOptimizer(parameter_groups(model, parts, OPTIONS))


def plain_engine(**options) -> PlainEngine:
    model = Net()
    device = torch.device("cpu")
    return PlainEngine(model, optimizer_of(model), device=device, clip_norm=CLIP, **options)


def engine_of(ranks: Ranks, stage: int, **options):
    model = Net()
    given = DeepSpeedOptions(
        images_per_batch=5,
        accumulation=SUMMED // ranks.world,
        clip_norm=CLIP,
        zero_stage=stage,
        **options,
    )
    return deepspeed_engine.DeepSpeedEngine(model, optimizer_of(model), ranks=ranks, options=given)


def advance(engine, steps, rank: int = 0, world: int = 1) -> None:
    """Updates, each of `SUMMED` batches, of which this process takes its share."""
    for step in steps:
        mine = range(rank, SUMMED, world)
        for number in mine:
            generator = torch.Generator().manual_seed(100 * step + number)
            labels = torch.randint(0, 3, (5,), generator=generator)
            with engine.autocast():
                logits = engine.model(torch.randn(5, 3, 4, 4, generator=generator), step % 2 == 0)
                loss = nn.functional.cross_entropy(logits, labels)
            engine.backward(loss)
            assert engine.step() == (number == mine[-1])


def weights_of(engine):
    """The whole weights without buffers, which are not the same in all processes."""
    found = whole(engine)
    return {name: found[name] for name, _ in engine.module.named_parameters()}


def same_state(one, other) -> bool:
    """Whether two canonical states have the same bits."""
    pairs = [(one["model"], other["model"])]
    pairs += [(one["optimizer"][name], other["optimizer"][name]) for name in other["optimizer"]]
    return one["optimizer"].keys() == other["optimizer"].keys() and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in b) for a, b in pairs
    )


def say(ranks: Ranks, check: str, **found) -> None:
    print(json.dumps({"check": check, "rank": ranks.rank, **found}), flush=True)


def check_stage(ranks: Ranks, folder: Path, stage: int, expected) -> None:
    """Equality with plain PyTorch, and a resumed run's with one that was not interrupted."""
    states = StateFolder(folder / f"{ranks.world}-{stage}", ranks)
    engine = engine_of(ranks, stage)
    advance(engine, range(SAVED), ranks.rank, ranks.world)
    norm = engine.gradient_norm()
    states.write(SAVED, {}, engine.shared_state(), engine.own_state())
    advance(engine, range(SAVED, LAST), ranks.rank, ranks.world)
    found = weights_of(engine)

    resumed = engine_of(ranks, stage)
    _, shared, mine = states.read()
    resumed.load_state(shared, mine["own"])
    advance(resumed, range(SAVED, LAST), ranks.rank, ranks.world)
    end, again = engine.shared_state(), resumed.shared_state()
    buffers = zip(engine.module.buffers(), resumed.module.buffers(), strict=True)
    say(
        ranks,
        "stage",
        stage=stage,
        from_reference=relative(found, expected) if ranks.first else 0.0,
        moved=relative(found, dict(Net().named_parameters())) if ranks.first else 1.0,
        same=same_state(end, again) if ranks.first else True,
        same_buffers=all(torch.equal(a, b) for a, b in buffers),
        norm=norm,
    )
    engine.close()
    resumed.close()


def check_state_of(ranks: Ranks, folder: Path, source: str, stage: int, expected, **options) -> None:
    """A state that another stage, engine or number of processes wrote, read and gone on from."""
    engine = engine_of(ranks, stage, **options)
    record, shared, _ = StateFolder(folder / source, ranks).read()
    engine.load_state(shared, {})
    again = engine.shared_state()
    same = same_state(again, shared) if ranks.first else True
    advance(engine, range(SAVED, LAST), ranks.rank, ranks.world)
    found = weights_of(engine)
    say(
        ranks,
        "from",
        source=source,
        stage=stage,
        step=record["step"],
        same=same,
        offload=bool(options),
        from_reference=relative(found, expected) if ranks.first else 0.0,
    )
    engine.close()


def check_real_model(ranks: Ranks) -> None:
    """FastPixelBERT for pre-training, one update without a masked word among them."""
    reference = plain_engine_of_real_model(build(), ranks.world)
    train(reference, range(6), range(ranks.world))
    expected = whole(reference)
    cases = [{"zero_stage": 0}, {"zero_stage": 2, "overlap_comm": True}, {"zero_stage": 3}]
    # Every weight is divided, and gathered where it is read: without a threshold no small one stays whole.
    cases.append({"zero_stage": 3, "extra": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}})
    cases.append({"zero_stage": 2, "offload_optimizer": True})
    cases.append({"zero_stage": 3, "offload_optimizer": True, "contiguous_gradients": False})
    for case in cases:
        engine = engine_of_real_model(build(), ranks, **case)
        train(engine, range(6), [ranks.rank])
        found = whole(engine)
        say(ranks, "real", **case, from_reference=relative(found, expected) if ranks.first else 0.0)
        engine.close()


def check_weights_read_without_their_modules(ranks: Ranks) -> None:
    """As FastPixelBERT folds norms into convolutions on a GPU: stage 3 must gather those weights as well."""
    from pixelbert_fast.model import fast_backbone

    kept, fast_backbone.in_one_pass = fast_backbone.in_one_pass, lambda x: False
    reference = plain_engine_of_real_model(build(), ranks.world)
    train(reference, range(4), range(ranks.world))
    engine = engine_of_real_model(build(), ranks, zero_stage=3)
    train(engine, range(4), [ranks.rank])
    found = whole(engine)
    fast_backbone.in_one_pass = kept
    say(ranks, "folded", from_reference=relative(found, whole(reference)) if ranks.first else 0.0)
    engine.close()


def check_fp16(ranks: Ranks, stage: int) -> None:
    """With a first scale that overflows: the same updates are skipped as in the plain engine."""
    expected = plain_engine(accumulation=SUMMED, precision="fp16")
    engine = engine_of(ranks, stage, precision="fp16")
    for one in (expected, engine):
        one._scale.cur_scale = 2.0**20
        advance(one, range(8))
    found = engine.shared_state()["scaler"]
    say(
        ranks,
        "fp16",
        stage=stage,
        scale=found["scale"],
        good=found["good"],
        same_scale=found == expected.shared_state()["scaler"],
        from_reference=relative(weights_of(engine), weights_of(expected)),
        moved=relative(weights_of(engine), dict(Net().named_parameters())),
    )
    engine.close()


def check_not_finite(ranks: Ranks, stage: int) -> None:
    """A gradient that is not finite in one process: no weight and no state changes, in any of them."""
    engine = engine_of(ranks, stage)
    engine.optimizer.skipped = torch.zeros((), dtype=torch.int64)
    advance(engine, range(2), ranks.rank, ranks.world)
    before = copy.deepcopy(engine.shared_state())
    for _ in range(SUMMED // ranks.world):
        loss = engine.model(torch.ones(2, 3, 4, 4), True).sum()
        engine.backward(loss * (float("nan") if ranks.rank == ranks.world - 1 else 1.0))
        engine.step()
    after = engine.shared_state()
    names = [name for name, _ in engine.module.named_parameters()]
    for state in (before, after):
        # The forward has moved the batch norm's statistics.
        state["model"] = {name: state["model"][name] for name in names if ranks.first}
    say(
        ranks,
        "not finite",
        stage=stage,
        same=same_state(after, before) if ranks.first else True,
        skipped=int(engine.optimizer.skipped),
    )
    engine.close()


def check_block(ranks: Ranks) -> None:
    try:
        engine_of(ranks, 2, extra={"zero_optimization": {"allgather_buckets": 1}})
    except UserError as error:
        say(ranks, "block", told=str(error))


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    ranks = deepspeed_engine.join()
    reference = plain_engine(accumulation=SUMMED)
    advance(reference, range(LAST))
    expected = weights_of(reference)
    if ranks.world == 1:
        # First, so that what DeepSpeed remembers of a precision would be seen in all that follows.
        for stage in STAGES:
            check_fp16(ranks, stage)
        check_block(ranks)
    for stage in STAGES:
        check_stage(ranks, folder, stage, expected)
    # From plain PyTorch, from other stages, and in the second launch from two processes to one.
    sources = {2: ("plain", "2-1", "2-3", "2-0"), 1: ("2-3", "2-2", "2-1", "2-0")}[ranks.world]
    for source, stage in zip(sources, STAGES, strict=True):
        check_state_of(ranks, folder, source, stage, expected)
    check_state_of(ranks, folder, "2-3", 1, expected, offload_optimizer=True)
    check_state_of(ranks, folder, "2-1", 3, expected, offload_optimizer=True)
    for stage in (1, 2, 3):
        check_not_finite(ranks, stage)
    if ranks.world == 2:
        check_state_of(ranks, folder, "plain", 3, expected)
        check_real_model(ranks)
        check_weights_read_without_their_modules(ranks)
    deepspeed_engine.leave()


if __name__ == "__main__":
    main()
