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
from bench_logging import batch
from contest import machine, take_turns

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pixelbert_fast.model import PixelBertConfig, PixelBertForPreTraining  # noqa: E402
from pixelbert_fast.tasks.pretraining.task import PretrainingTask  # noqa: E402
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer, parameter_groups  # noqa: E402
from pixelbert_fast.training.plain_engine import PlainEngine  # noqa: E402

SGD = {"algorithm": "sgd", "lr": 1e-2, "weight_decay": 5e-4, "momentum": 0.9}
ADAMW = {"algorithm": "adamw", "lr": 1e-4, "weight_decay": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8}
NO_BOUND = 1e9  # the gradients are multiplied by 1, and stay as they are for all
FIRST = "torch.optim, two objects"


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
        "torch.optim, two objects, fused=True": torchs(weights, clip=clip, fused=True),
        "ours, step by step": ours(weights, fused=False, clip=clip),
        "ours, fused": ours(weights, fused=True, clip=clip),
    }


def verify(weights: Weights, entered: dict[str, tuple[torch.nn.Module, Callable]]) -> float:
    """Three updates each; the largest difference of any weight from torch's, refused above 1e-6.

    Weights are near 0.02 to 0.1 and move by at most 1e-4 an update: 1e-6 is a hundredth of that, and a
    hundred times their rounding.
    """
    for _, step in entered.values():
        for _ in range(3):
            step()
    reference = list(entered[FIRST][0].parameters())
    worst = 0.0
    for name, (holder, _) in entered.items():
        for mine, theirs in zip(holder.parameters(), reference, strict=True):
            worst = max(worst, float((mine - theirs).abs().max()))
        if not worst <= 1e-6:
            raise SystemExit(f"{name} differs from torch's by {worst:.2g}: nothing was timed")
    moved = max(
        float((mine - first.to(mine.device)).abs().max())
        for mine, first in zip(reference, weights.first.values(), strict=True)
    )
    if moved < 1e-4:
        raise SystemExit("the weights have not moved: nothing was timed")
    return worst


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

        def step() -> None:
            with torch.enable_grad():
                engine.backward(engine.model(**inputs, seed=0).loss)
            engine.step()

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
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--processor-time", action="store_true", help="of a busy machine it tells more")
    parser.add_argument("--whole", action="store_true", help="whole steps of training as well")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    weights = Weights(options.preset, options.share, options.device)
    record = {
        **machine(options.device),
        "threads": torch.get_num_threads(),
        "tensors": len(weights.shapes),
        "weights": weights.count(),
    }
    for clip in (False, True):
        entered = contestants(weights, clip=clip)
        worst = verify(weights, entered)
        runs = {name: step for name, (_, step) in entered.items()}
        timings = take_turns(
            runs,
            options.device,
            rounds=options.rounds,
            seconds=options.seconds,
            processor_time=options.processor_time,
        )
        print(
            f"\n| an update{' with clipping' if clip else ''} | ms (0.2 to 0.8) | of torch's |\n|---|---|---|"
        )
        first = timings[FIRST].median
        for name, timing in timings.items():
            spread = f"{timing.median:.1f} ({timing.low:.1f} to {timing.high:.1f})"
            print(f"| {name} | {spread} | {timing.median / first:.2f} |")
        print(f"\n{timing.runs} runs each, in turn; the weights differ by {worst:.1g} at most")
        record["clipped" if clip else "plain"] = {n: timing.as_dict() for n, timing in timings.items()}
        del entered, runs  # gigabytes
    if options.whole:
        timings = take_turns(
            whole_steps(options.preset, options.device),
            options.device,
            rounds=options.rounds,
            seconds=options.seconds,
            processor_time=options.processor_time,
        )
        print("\n| a whole step | ms (0.2 to 0.8) |\n|---|---|")
        for name, timing in timings.items():
            print(f"| {name} | {timing.median:.0f} ({timing.low:.0f} to {timing.high:.0f}) |")
        record["whole"] = {n: timing.as_dict() for n, timing in timings.items()}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
