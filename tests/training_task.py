"""A task small enough to train in milliseconds, for tests of everything around a task.

Run as a script it is the training command with this task in the place of the real ones, for tests of
launchers.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn


class ToyModel(nn.Module):
    """A convolution with batch norm as the backbone, a linear layer with dropout as the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(pixels).mean((2, 3)))


class ToyTask:
    """Six batches an epoch, each a pure function of its epoch, number and rank."""

    name = "toy"
    headlines = ("accuracy",)
    broken = 0

    def __init__(self, config, device="cpu", *, bad_step: int | None = None) -> None:
        torch.manual_seed(config.seed)
        self.model = ToyModel()
        self.calls = 0
        self.bad_step = bad_step
        self.images = config.training.images_per_batch
        self.on_loss = None

    def steps_per_epoch(self, world: int, epoch: int = 0, start: int = 0) -> int:
        return 6

    def batches(self, epoch: int, rank: int, world: int, skip: int = 0, start: int = 0):
        for number in range(skip, 6):
            generator = torch.Generator().manual_seed(1000 * epoch + 10 * number + rank)
            labels = torch.randint(0, 3, (self.images,), generator=generator)
            pixels = (
                torch.randn(self.images, 3, 6, 6, generator=generator) * 0.3 + labels[:, None, None, None]
            )
            rows = torch.arange(self.images) + 100 * number
            keys = {"keys": (epoch, number), "sample_keys": torch.tensor([1000 * epoch + 10 * number + rank])}
            yield {"pixels": pixels, "labels": labels, "rows": rows, **keys}

    def loss(self, model, batch):
        self.calls += 1
        loss = nn.functional.cross_entropy(model(batch["pixels"]), batch["labels"])
        if self.bad_step == self.calls:
            loss = loss * float("nan")
        if self.on_loss is not None:
            self.on_loss(self.calls)
        return loss, {"part": loss.detach() * 0.5}

    def keys(self, rows):
        return [f"toy-{row}" for row in rows]

    def flops(self, batch):
        return 1000 * len(batch["labels"])

    def size(self, batch):
        return {"pairs": len(batch["labels"]), "images": len(batch["labels"])}

    def parameter_groups(self, model):
        named = list(model.named_parameters())
        return {
            "backbone": [(n, p) for n, p in named if n.startswith("backbone")],
            "transformer": [(n, p) for n, p in named if not n.startswith("backbone")],
        }

    def evaluate(self, model, progress=None, limit=None):
        model.eval()
        torch.rand(7)  # a careless evaluation draws; training must not notice
        right = total = 0
        with torch.no_grad():
            for batch in self.batches(99, 0, 1):
                right += int((model(batch["pixels"]).argmax(1) == batch["labels"]).sum())
                total += len(batch["labels"])
                if progress is not None:
                    progress(total, 6 * self.images)
        return {"val": {"accuracy": right / total}}

    def save(self, model, directory):
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), directory / "model.pt")

    def headline(self, metrics):
        return {"accuracy": metrics["val"]["accuracy"]}

    def summary(self, metrics):
        return [("accuracy", f"{metrics['val']['accuracy']:.3f}")]


def _main() -> int:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pixelbert_fast.training import run
    from pixelbert_fast.training.cli import main

    deed = os.environ.get("TOY_DEED", "")

    def make(config, device):
        task = ToyTask(config)

        def on_loss(call: int) -> None:
            if deed == "slow":
                time.sleep(0.04)
            if call != int(os.environ.get("TOY_CALL", "4")):
                return
            if deed == "raise":
                raise ValueError("the toy broke")
            if deed == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if deed == "wait":
                Path(os.environ["TOY_READY"]).touch()
                time.sleep(0.5)

        task.on_loss = on_loss
        return task

    run._make_task = make
    return main()


if __name__ == "__main__":
    sys.exit(_main())
