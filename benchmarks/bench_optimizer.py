"""Times one update of all weights: ours fused, ours step by step, and torch's own two optimisers.

    python benchmarks/bench_optimizer.py
    python benchmarks/bench_optimizer.py --preset r50 --share 0.33 --threads 1 --processor-time

The weights are those of a preset, of their real shapes, SGD for the backbone and AdamW for the rest, with
gradients drawn once. `share` keeps that part of them where memory is short. All are checked first: three
updates from the same start give the same weights. Ours also look whether every gradient is finite and take
norms by group, which torch's do not; the second table adds clipping by the global norm to all. With
`--whole`, a third one has whole steps of training, two images of 256 by 320 and eight texts, in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

import ceilings  # noqa: E402 - needs the path above
import contest  # noqa: E402
import rows_table  # noqa: E402
from bench_logging import batch  # noqa: E402
from rows import PEER, REFERENCE, Contest, Row, Work, with_checks  # noqa: E402

from pixelbert_fast.model import PixelBertConfig, PixelBertForPreTraining  # noqa: E402
from pixelbert_fast.tasks.pretraining.task import PretrainingTask  # noqa: E402
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer, parameter_groups  # noqa: E402
from pixelbert_fast.training.plain_engine import PlainEngine  # noqa: E402

SGD = {"algorithm": "sgd", "lr": 1e-2, "weight_decay": 5e-4, "momentum": 0.9}
ADAMW = {"algorithm": "adamw", "lr": 1e-4, "weight_decay": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8}
NO_BOUND = 1e9  # the gradients are multiplied by 1, and stay as they are for all
FIRST = "torch.optim, two objects"
FUSED = "torch.optim, two objects, fused=True"


class Weights:
    """A preset's weights by name, and which part each belongs to."""

    def __init__(self, preset: str, share: float, device: str) -> None:
        with torch.device("meta"):
            model = PixelBertForPreTraining(PixelBertConfig.preset(preset))
        self.shapes = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
        step = max(round(1 / share), 1)
        self.shapes = dict(list(self.shapes.items())[::step])
        self.device = device
        generator = torch.Generator().manual_seed(0)
        self.first = {n: torch.randn(s, generator=generator) * 0.02 for n, s in self.shapes.items()}
        self.grads = {
            n: (torch.randn(s, generator=generator) * 1e-3).to(device) for n, s in self.shapes.items()
        }

    def count(self) -> int:
        return sum(shape.numel() for shape in self.shapes.values())

    def model(self) -> torch.nn.Module:
        """A module with weights of its own that holds them by their place."""
        holder = torch.nn.Module()
        for place, (name, value) in enumerate(self.first.items()):
            weight = torch.nn.Parameter(value.to(self.device, copy=True))
            weight.grad = self.grads[name]
            holder.register_parameter(f"p{place}", weight)
        return holder

    def groups(self, holder: torch.nn.Module) -> list[dict]:
        """As a run sorts them."""
        parts: dict[str, list] = {"backbone": [], "transformer": []}
        for name, (own, weight) in zip(self.shapes, holder.named_parameters(), strict=True):
            parts["backbone" if ".backbone." in name else "transformer"].append((own, weight))
        return parameter_groups(holder, parts, {"backbone": SGD, "transformer": ADAMW})


def ours(weights: Weights, *, fused: bool, clip: bool) -> tuple[torch.nn.Module, Callable]:
    holder = weights.model()
    optimizer = TwoAlgorithmOptimizer(weights.groups(holder), fused=fused)
    optimizer.clip_norm = NO_BOUND if clip else None
    return holder, optimizer.step


def torchs(weights: Weights, *, clip: bool, **options) -> tuple[torch.nn.Module, Callable]:
    holder = weights.model()
    both: dict[str, list] = {"sgd": [], "adamw": []}
    for group in weights.groups(holder):
        names = ("lr", "weight_decay", "momentum" if group["algorithm"] == "sgd" else "betas")
        both[group["algorithm"]].append({"params": group["params"], **{key: group[key] for key in names}})
    optimizers = [torch.optim.SGD(both["sgd"], **options), torch.optim.AdamW(both["adamw"], **options)]

    def step() -> None:
        if clip:
            torch.nn.utils.clip_grad_norm_(holder.parameters(), NO_BOUND)
        for optimizer in optimizers:
            optimizer.step()

    return holder, step


def contestants(weights: Weights, *, clip: bool) -> dict[str, tuple[torch.nn.Module, Callable]]:
    return {
        FIRST: torchs(weights, clip=clip),
        FUSED: torchs(weights, clip=clip, fused=True),
        "ours, step by step": ours(weights, fused=False, clip=clip),
        "ours, fused": ours(weights, fused=True, clip=clip),
    }


def verify(weights: Weights, entered: dict[str, tuple[torch.nn.Module, Callable]]) -> dict[str, float]:
    """Three updates each; by contestant, the largest difference of any weight from torch's.

    Raises:
        AssertionError: one is above 1e-6. Weights are near 0.02 to 0.1 and move by at most 1e-4 an update:
            1e-6 is a hundredth of that, and a hundred times their rounding.
    """
    for _, step in entered.values():
        for _ in range(3):
            step()
    reference = list(entered[FIRST][0].parameters())
    moved = max(
        float((mine - first.to(mine.device)).abs().max())
        for mine, first in zip(reference, weights.first.values(), strict=True)
    )
    assert moved > 1e-4, "the weights have not moved: nothing was timed"
    found = {}
    for name, (holder, _) in entered.items():
        pairs = zip(holder.parameters(), reference, strict=True)
        found[name] = max(float((mine - theirs).abs().max()) for mine, theirs in pairs)
        assert found[name] <= 1e-6, f"{name} differs from torch's by {found[name]:.2g}: nothing was timed"
    return found


def least_work(weights: Weights, *, clip: bool) -> Work:
    """The bytes that an update must move, all float32; operations are few beside them.

    SGD reads weight, gradient and momentum and writes weight and momentum; AdamW has a second moment too.
    Clipping reads every gradient once more, since its norm must be known before the first weight moves.
    """
    moved = 0
    for name, shape in weights.shapes.items():
        each = 5 if ".backbone." in name else 7
        moved += 4 * (each + clip) * shape.numel()
    return Work(bytes=moved)


def contests(
    device: str,
    *,
    preset: str = "r50",
    share: float = 1.0,
    whole: bool = False,
    rounds: int = 15,
    seconds: float = 120.0,
    processor_time: bool = False,
) -> tuple[list[Row], list[str]]:
    """A row of each contestant without and with clipping, and why what is missing was not measured.

    Args:
        preset, share: whose weights, and which part of them (see the module).
        whole: whole steps of training as well.
        rounds, seconds, processor_time: as for `contest.take_turns`, `seconds` for each of the cases.

    Raises:
        AssertionError: a contestant's weights differ from torch's; then nothing was timed.
    """
    how = {"rounds": rounds, "seconds": seconds, "processor_time": processor_time}
    told = ", processor time" if processor_time else ""
    with torch.no_grad():
        weights = Weights(preset, share, device)
        rows = []
        for clip in (False, True):
            entered = contestants(weights, clip=clip)
            apart = verify(weights, entered)
            runs = {name: step for name, (_, step) in entered.items()}
            timings = contest.take_turns(runs, device, **how)
            case = Contest(
                "optimizer",
                f"one update{' with clipping' if clip else ''}: {len(weights.shapes)} tensors of {preset}, "
                f"{weights.count():,} weights, float32{told}",
                "float32",
                least_work(weights, clip=clip),
                roles={FIRST: REFERENCE, FUSED: PEER},
            )
            del apart[FIRST]
            checks = {name: f"weights within {each:.1g} after three updates" for name, each in apart.items()}
            rows += with_checks(case.rows(timings, memory=_memory(runs, device)), checks)
            del entered, runs  # gigabytes
    if whole:
        steps = whole_steps(preset, device)
        losses = {name: [float(step()) for _ in range(3)] for name, step in steps.items()}
        plain = losses["ours, step by step"]
        # Of runs that round otherwise, after two updates.
        apart = max(abs(a - b) / b for a, b in zip(losses["ours, fused"], plain, strict=True))
        assert apart <= 1e-5, f"losses of whole steps differ by {apart:.1g}: nothing was timed"
        timings = contest.take_turns(steps, device, **how)
        case = Contest(
            "optimizer",
            f"a whole step: {preset}, trained norm, float32, 2 images of 256 x 320, 4 captions each{told}",
            "float32",
            checked=f"losses within {apart:.1g}",
            roles={"ours, step by step": REFERENCE},
        )
        rows += case.rows(timings, memory=_memory(steps, device))
    return rows, []


def _memory(runs: dict[str, Callable], device: str) -> dict[str, int | None]:
    return {name: contest.peak_memory(run, device) for name, run in runs.items()}


def whole_steps(preset: str, device: str) -> dict[str, Callable]:
    """A forward, backward and update by the plain engine, which clips."""
    config = PixelBertConfig.preset(preset)
    inputs = {k: v.to(device) for k, v in batch(config.vocab_size, 2, (256, 320)).items()}

    def step_of(fused: bool) -> Callable:
        torch.manual_seed(0)
        model = PixelBertForPreTraining(config).train()
        named = PretrainingTask.parameter_groups(None, model)
        groups = parameter_groups(model, named, {"backbone": SGD, "transformer": ADAMW})
        optimizer = TwoAlgorithmOptimizer(groups, fused=fused)
        engine = PlainEngine(model, optimizer, device=torch.device(device), clip_norm=10.0)

        def step() -> torch.Tensor:
            loss = engine.model(**inputs, seed=0).loss
            engine.backward(loss)
            engine.step()
            return loss.detach()

        return step

    return {"ours, step by step": step_of(False), "ours, fused": step_of(True)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="r50")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=120.0, help="a case, at most")
    parser.add_argument("--processor-time", action="store_true", help="of a busy machine it tells more")
    parser.add_argument("--whole", action="store_true", help="whole steps of training as well")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    given = {name: value for name, value in vars(options).items() if name not in ("device", "threads")}
    rows, not_measured = contests(options.device, **given)
    machine = contest.machine(options.device)
    # Of the clock: a share of it by what threads worked would mean nothing.
    found = None if options.processor_time else ceilings.measure(options.device)
    rows_table.show(rows, not_measured, ceilings=found)
    print(f"\n{json.dumps({**machine, 'rows': [row.as_dict(found) for row in rows]})}")


if __name__ == "__main__":
    main()
