"""What two DeepSpeed processes compute, against plain PyTorch in the same process. `test_engine` starts both.

Every stage trains three steps, saves, and goes on for two more; a second engine resumes from the save. The
reference averages both processes' gradients by hand. Prints one JSON line a stage.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn

from pixelbert_fast.training import deepspeed_engine
from pixelbert_fast.training.checkpoint import StateFolder
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer, parameter_groups

CLIP = 0.5
OPTIONS = {
    "backbone": {"algorithm": "sgd", "lr": 0.05, "weight_decay": 5e-4, "momentum": 0.9},
    "transformer": {"algorithm": "adamw", "lr": 3e-3, "weight_decay": 1e-2},
}


class Net(nn.Module):
    """Batch norm, weights in channels_last, and one frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
        self.frozen = nn.Linear(24, 24).requires_grad_(False)
        self.head = nn.Linear(24, 3)
        self.to(memory_format=torch.channels_last)  # as FastPixelBERT's backbone is

    def forward(self, pixels):
        return self.head(self.frozen(self.backbone(pixels)))


def optimizer_of(model):
    named = list(model.named_parameters())
    parts = {
        "backbone": [pair for pair in named if pair[0].startswith("backbone")],
        "transformer": [pair for pair in named if not pair[0].startswith("backbone")],
    }
    return TwoAlgorithmOptimizer(parameter_groups(model, parts, OPTIONS))


def loss_of(model, step, part, rank):
    generator = torch.Generator().manual_seed(100 * step + 10 * part + rank)
    labels = torch.randint(0, 3, (5,), generator=generator)
    return nn.functional.cross_entropy(model(torch.randn(5, 3, 4, 4, generator=generator)), labels)


def reference(steps, accumulation, world):
    model = Net()
    optimizer = optimizer_of(model)
    for step in range(steps):
        for part in range(accumulation):
            for rank in range(world):
                (loss_of(model, step, part, rank) / (accumulation * world)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
    return model


def engine_of(ranks, stage, accumulation):
    model = Net()
    return deepspeed_engine.DeepSpeedEngine(
        model,
        optimizer_of(model),
        ranks=ranks,
        zero_stage=stage,
        images_per_batch=5,
        accumulation=accumulation,
        clip_norm=CLIP,
    )


def advance(engine, steps, accumulation, rank):
    for step in steps:
        for part in range(accumulation):
            engine.backward(loss_of(engine.model, step, part, rank))
            done = engine.step()
            assert done == (part == accumulation - 1)


def difference(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a.detach() - b.detach()).abs().max()) for a, b in pairs)


def main() -> None:
    torch.set_num_threads(1)
    ranks = deepspeed_engine.join()
    for stage in (0, 1, 2):
        accumulation = 1 if stage == 1 else 2
        states = StateFolder(Path(sys.argv[1]) / str(stage), ranks)
        engine = engine_of(ranks, stage, accumulation)
        advance(engine, range(3), accumulation, ranks.rank)
        norm = engine.gradient_norm()
        states.write(3, {}, engine.shared_state(), engine.own_state())
        advance(engine, range(3, 5), accumulation, ranks.rank)

        resumed = engine_of(ranks, stage, accumulation)
        _, shared, mine = states.read()
        resumed.load_state(shared, mine["own"])
        advance(resumed, range(3, 5), accumulation, ranks.rank)
        buffers = zip(engine.module.buffers(), resumed.module.buffers(), strict=True)
        found = {
            "stage": stage,
            "from_reference": difference(engine.module, reference(5, accumulation, ranks.world)),
            "moved": difference(engine.module, Net()),
            "resumed": difference(engine.module, resumed.module),
            "same_buffers": all(torch.equal(a, b) for a, b in buffers),
            "norm": norm,
        }
        print(json.dumps({"rank": ranks.rank, **found}), flush=True)
        engine.close()
        resumed.close()
    deepspeed_engine.leave()


if __name__ == "__main__":
    main()
