"""Times what is done beside a step so that it can be logged and guarded, and a step of the tiny model.

    python benchmarks/bench_logging.py

A few images are made up, in batches as the demo's: 16 of 96 by 96 pixels, four texts each. Every part is
timed by itself, since a difference of a hundredth between two whole runs is less than they differ anyway:
what an optimiser step takes beyond the bare fused kernels, the watch over what is not finite with batch
norm's statistics, counting operations, and a twentieth of a record (`training.log_every` is 20), which
goes to JSON lines and TensorBoard. Figures are this process's own time, on one thread.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pixelbert_fast.model import PixelBertConfig, PixelBertForPreTraining  # noqa: E402
from pixelbert_fast.tasks.pretraining.figures import batch_flops, words_right  # noqa: E402
from pixelbert_fast.tasks.pretraining.task import PretrainingTask  # noqa: E402
from pixelbert_fast.training import update_rules  # noqa: E402
from pixelbert_fast.training.logs import RunLog  # noqa: E402
from pixelbert_fast.training.loop import Position, TrainingLoop  # noqa: E402
from pixelbert_fast.training.meters import Clock  # noqa: E402
from pixelbert_fast.training.nonfinite import NonFinite  # noqa: E402
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer, parameter_groups  # noqa: E402
from pixelbert_fast.training.plain_engine import PlainEngine  # noqa: E402
from pixelbert_fast.training.ranks import Ranks  # noqa: E402

IMAGES, TEXTS, LENGTH = 16, 4, 20
LOG_EVERY = 20


def batch(vocabulary: int, images: int = IMAGES, size: tuple[int, int] = (96, 96)) -> dict[str, torch.Tensor]:
    """Made-up images with four texts each, a third of their words masked."""
    torch.manual_seed(0)
    pairs = images * TEXTS
    words = torch.randint(5, vocabulary, (pairs, LENGTH))
    masked = torch.rand(pairs, LENGTH) < 0.3
    return {
        "pixel_values": torch.randn(images, 3, *size).to(memory_format=torch.channels_last),
        "image_index": torch.arange(images, dtype=torch.int32).repeat_interleave(TEXTS),
        "input_ids": words,
        "attention_mask": torch.ones(pairs, LENGTH, dtype=torch.int64),
        "labels": torch.where(masked, words, -100),
        "matched": torch.arange(pairs) % 2,
        "sample_keys": torch.arange(pairs),
    }


def milliseconds(
    work: Callable[[], object], rounds: int, before: Callable[[], object] | None = None
) -> float:
    """The median of `rounds` runs after two that do not count; `before` each, not timed."""
    taken = []
    for _ in range(rounds + 2):
        if before is not None:
            before()
        start = time.process_time()
        work()
        taken.append(1e3 * (time.process_time() - start))
    return statistics.median(taken[2:])


def main() -> None:
    torch.set_num_threads(1)
    config = PixelBertConfig.preset("tiny")
    model = PixelBertForPreTraining(config).train()
    options = {"algorithm": "adamw", "lr": 1e-4, "weight_decay": 1e-2}
    named = PretrainingTask.parameter_groups(None, model)
    optimizer = TwoAlgorithmOptimizer(
        parameter_groups(model, named, {"backbone": options, "transformer": options})
    )
    engine = PlainEngine(model, optimizer, device=torch.device("cpu"), clip_norm=10.0)
    inputs = batch(config.vocab_size)
    task = SimpleNamespace(broken=0, flops=lambda given: batch_flops(config, given, fast=True))

    def step() -> None:
        engine.backward(model(**inputs, seed=0).loss)
        engine.step()

    whole = milliseconds(step, 15)
    outputs = model(**inputs, seed=0)
    loss = outputs.loss

    def give() -> None:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-6)

    give()
    bad = torch.zeros(())

    def bare() -> None:
        for group in optimizer.param_groups:
            for pieces in optimizer._pieces(group):
                update_rules.fused(group, pieces, bad, None)

    judging = milliseconds(optimizer.step, 60) - milliseconds(bare, 60)
    watch = NonFinite(task, engine, Ranks(), 3)
    values = torch.stack([loss.detach()] * 5)

    def watched() -> None:
        watch.batch(1, values, None)
        watch.updated()

    def guarded() -> None:
        torch.autograd.grad(watch.guard(loss * 1.0), loss, retain_graph=True)

    def unguarded() -> None:
        torch.autograd.grad(loss * 1.0, loss, retain_graph=True)

    parts = {
        "finite or not, and norms by group": judging,
        "the loss's guard": milliseconds(guarded, 200) - milliseconds(unguarded, 200),
        "the watch, with batch norm's statistics": milliseconds(watched, 60),
        "counting operations": milliseconds(lambda: task.flops(inputs), 60),
        "words told right": milliseconds(lambda: words_right(outputs.mlm_logits, inputs["labels"]), 60),
    }
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(Path(folder), writes=True)
        position = Position(step=1)
        loop = TrainingLoop(
            task,
            engine,
            None,
            ranks=Ranks(),
            states=None,
            log=log,
            options=SimpleNamespace(precision="fp32", peak_tflops=1.0, skip_nonfinite=3),
            record={},
        )
        loop._watch, loop._per_epoch = watch, 100
        loop._names = ["loss", "mlm_loss", "itm_loss", "mlm_accuracy", "itm_accuracy"]
        clock = Clock(position)

        def interval() -> None:
            watch._batches.clear()
            watch._marks.clear()
            for number in range(LOG_EVERY):
                watch.batch(number + 1, values, None)
                watch.updated()
                clock.batch(0.0, IMAGES, 1)

        record = milliseconds(lambda: loop._report(position, clock), 60, before=interval)
        log.close()
    parts["a twentieth of a record"] = record / LOG_EVERY
    print(f"a step of the tiny model: {whole:.1f} ms of one core\n")
    print("| beside it | ms a step | of the step |\n|---|---|---|")
    for name, taken in {**parts, "together": sum(parts.values())}.items():
        print(f"| {name} | {taken:.3f} | {100 * taken / whole:.2f} % |")


if __name__ == "__main__":
    main()
