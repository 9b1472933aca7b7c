"""The training loop: batches in, updates out, and everything that happens between two updates."""

from __future__ import annotations

import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pixelbert_fast.errors import RunError
from pixelbert_fast.training.checkpoint import StateFolder
from pixelbert_fast.training.engine import Engine
from pixelbert_fast.training.logs import RunLog, bar
from pixelbert_fast.training.meters import Clock as _Clock
from pixelbert_fast.training.meters import gradient_norms, memory, status
from pixelbert_fast.training.nonfinite import NonFinite
from pixelbert_fast.training.peaks import peak_tflops
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.schedule import Schedule
from pixelbert_fast.training.signals import StopSignals, exit_status

# Above every signal's number.
_LATE = 256


@dataclass
class Position:
    """Where a run is.

    Attributes:
        step: updates made.
        epoch, batch: the epoch, and how many of its batches this process has read.
        start: batches of the epoch, of all processes together, read before the number of processes changed;
            `batch` counts from there.
        seconds: spent training, over all sittings.
        pairs: image-text pairs seen, by all processes: as many times those of this one as there are.
        skipped: updates left out because their loss or gradient was not finite; `step` counts them too.
        evaluated: the step of the last evaluation on the way.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    pairs: int = 0
    start: int = 0
    skipped: int = 0
    evaluated: int = 0

    def shown(self, world: int) -> int:
        """Batches of the epoch that all processes together have read."""
        return self.start + self.batch * world


class Stopped(Exception):
    """The run was asked to stop and has saved its state."""

    def __init__(self, number: signal.Signals, step: int) -> None:
        super().__init__(f"stopped after step {step}; the same command goes on from there")
        self.status = exit_status(number)


class TrainingLoop:
    """One run's loop; `run` is called once.

    Args:
        task: what is trained, see `tasks.protocol.Task`.
        engine, schedule: what computes the updates, and their rates.
        states: where the state to resume from goes.
        record: put into every state (the configuration).
        evaluate: called with the position at the end of every `evaluate_every` epochs (0: never).
    """

    def __init__(
        self,
        task: Any,
        engine: Engine,
        schedule: Schedule,
        *,
        ranks: Ranks,
        states: StateFolder,
        log: RunLog,
        options: Any,
        record: dict[str, Any],
        evaluate: Callable[[Position], None] | None = None,
        evaluate_every: int = 0,
    ) -> None:
        self._task = task
        self._engine = engine
        self._schedule = schedule
        self._ranks = ranks
        self._states = states
        self._log = log
        self._options = options
        self._record = record
        self._evaluate = evaluate if evaluate_every else None
        self._evaluate_every = evaluate_every
        self._losses: list[torch.Tensor] = []
        self._kept: list[torch.Tensor] = []
        self._names: list[str] = []
        self._peak = peak_tflops(engine.device, options.precision, options.peak_tflops)

    def run(self, position: Position, total_steps: int, title: str = "training") -> None:
        """Train from `position` (which is moved on) until there are `total_steps` updates; save the state.

        Raises:
            Stopped: a signal came; the state is saved.
            RunError: more losses or gradients are not finite than may be, or an epoch has no batches.
        """
        if position.step >= total_steps:
            return
        self._per_epoch = self._task.steps_per_epoch(self._ranks.world)
        self._total_steps = total_steps
        batches = self._batches(position.epoch, position.batch, position.start)
        clock = _Clock(position)
        self._engine.module.train()
        self._watch = NonFinite(self._task, self._engine, self._ranks, self._options.skip_nonfinite)
        progress = bar(title, total_steps, position.step, shown=self._ranks.first)
        try:
            with StopSignals(says=self._ranks.first) as signals, progress:
                # A sitting that was stopped just before has left it to this one.
                self._evaluate_if_due(position, clock, done=False)
                while position.step < total_steps:
                    self._update(batches, position, clock)
                    progress.update()
                    done = position.step == total_steps
                    if done or position.step % self._options.log_every == 0:
                        progress.say(self._report(position, clock))
                    else:
                        clock.tick()
                    # Before an evaluation, which may take longer than whoever sent a signal waits.
                    self._save_if_due(position, clock, signals, done)
                    if self._evaluate_if_due(position, clock, done):
                        self._save_if_due(position, clock, signals, done)
        finally:
            batches.close()

    def _batches(self, epoch: int, skip: int, start: int) -> Any:
        endless = self._endless(epoch, skip, start)
        if self._options.prefetch:
            from pixelbert_fast.data.loader import prefetch

            return prefetch(endless, self._options.prefetch)
        return endless

    def _endless(self, epoch: int, skip: int, start: int) -> Iterator[tuple[Any, tuple[int, int, int]]]:
        """Batches, each with the (epoch, batch, start) that the position has when it has been read."""
        rank, world = self._ranks.rank, self._ranks.world
        for number in itertools.count(epoch):
            # Asked anew: epochs of one run may differ in length.
            steps, done = self._task.steps_per_epoch(world, number, start), skip
            for batch in self._task.batches(number, rank, world, skip=skip, start=start):
                done += 1
                yield batch, (number, done, start) if done < steps else (number + 1, 0, 0)
            if not done and not start:
                raise RunError(f"epoch {number} has no batches; the training split holds too few images")
            skip = start = 0

    def _update(self, batches: Iterator[Any], position: Position, clock: _Clock) -> None:
        self._schedule.set(position.step)
        complete = False
        while not complete:
            asked = time.perf_counter()
            batch, place = next(batches)
            waited = time.perf_counter() - asked
            size = self._task.size(batch)
            clock.batch(waited, size["images"], self._flops(batch))
            position.pairs += size["pairs"] * self._ranks.world
            batch = _on_device(batch, self._engine.device)
            with self._engine.autocast():
                loss, scalars = self._task.loss(self._engine.model, batch)
            self._engine.backward(self._watch.guard(loss))
            complete = self._engine.step()
            # Kept on the device: reading it now would make the host wait for every step.
            self._names = ["loss", *scalars]
            values = [loss.detach(), *(value.detach() for value in scalars.values())]
            self._losses.append(torch.stack([value.float().reshape(()) for value in values]))
            self._watch.batch(position.step + 1, self._losses[-1], batch.get("rows"))
            position.epoch, position.batch, position.start = place
        self._watch.updated()
        position.step += 1

    def _flops(self, batch: dict[str, Any]) -> int:
        count = getattr(self._task, "flops", None)
        return 0 if count is None else count(batch)

    def _report(self, position: Position, clock: _Clock) -> list[str]:
        """Log the interval; returns what the bar is to say of it."""
        self._check(position)
        means = self._means()
        clock.tick()
        figures = self._over_processes(clock.interval(position))
        whole, norms = gradient_norms(self._engine, self._ranks)
        optimizer = self._engine.optimizer
        values = {
            "epoch": position.epoch + self._share_of_epoch(position),
            **means,
            "gradient_norm": whole,
            "gradient_norms": norms,
            "lr": {group["label"]: group["lr"] for group in optimizer.param_groups},
            **figures,
            # An image that several processes met counts for each of them.
            "broken_images": sum(self._ranks.gather(self._task.broken)),
            "skipped_updates": position.skipped,
            "memory": memory(self._engine.device),
            "seconds": position.seconds,
        }
        self._log.write("train", position.step, values)
        return status(means, figures)

    def _over_processes(self, figures: dict[str, float]) -> dict[str, float | None]:
        """Rates summed, waits and step times averaged over the processes; with the share of the peak."""
        pairs = figures.pop("pairs_per_second")
        figures = dict(zip(figures, self._ranks.mean(list(figures.values())), strict=True))
        figures["images_per_second"] *= self._ranks.world
        # Of one device, as the peak is.
        tflops = figures.pop("tflops") or None
        share = tflops / self._peak if tflops and self._peak else None
        return {"pairs_per_second": pairs, **figures, "tflops": tflops, "mfu": share}

    def _share_of_epoch(self, position: Position) -> float:
        world = self._ranks.world
        return min(position.shown(world) / max(self._per_epoch * world, 1), 1.0)

    def _check(self, position: Position) -> None:
        """Read the losses since the last call: keep those that went into the weights, tell the others."""
        if not self._losses:
            return
        kept, left_out = self._watch.read()
        self._losses.clear()
        self._kept.append(kept)
        for one in left_out:
            self._log.write("left_out", one.step, one._asdict())
        self._watch.ended(left_out, position.skipped)
        for number, one in enumerate(left_out, start=position.skipped + 1):
            self._log.say(
                f"{one.told()}; the update is left out ({number} of at most {self._options.skip_nonfinite})"
            )
        position.skipped += len(left_out)

    def _means(self) -> dict[str, float]:
        """Over the interval, however many states were saved in it."""
        kept = torch.cat(self._kept)
        self._kept.clear()
        values = kept.mean(0).tolist() if len(kept) else [math.nan] * len(self._names)
        return dict(zip(self._names, self._ranks.mean(values), strict=True))

    def _evaluate_if_due(self, position: Position, clock: _Clock, done: bool) -> bool:
        if done or position.evaluated == position.step or not self._evaluation_due(position):
            return False
        clock.pause()
        self._evaluate(position)
        self._engine.module.train()
        clock.go_on()
        position.evaluated = position.step
        return True

    def _evaluation_due(self, position: Position) -> bool:
        if self._evaluate is None or position.epoch == 0 or position.epoch % self._evaluate_every:
            return False
        # The update that crossed the boundary may have read into the next epoch.
        return not position.start and position.batch < min(self._options.accumulation, self._per_epoch)

    def _save_if_due(self, position: Position, clock: _Clock, signals: StopSignals, done: bool) -> None:
        minutes = self._options.checkpoint_every_minutes
        late = bool(minutes) and clock.since_save() >= 60.0 * minutes
        # One exchange a step for both questions, so that all processes stop and save after the same step.
        words = self._ranks.gather(int(signals.received or 0) + _LATE * late)
        # Ctrl-C has the least number, and DeepSpeed's launcher sends SIGTERM after it.
        number = min((word % _LATE for word in words if word % _LATE), default=0)
        due = any(word >= _LATE for word in words)
        if not (number or due or done):
            return
        self._check(position)  # never save what a loss that is not finite has made
        clock.rate(position)
        record = {"position": asdict(position), "config": self._record, "total_steps": self._total_steps}
        shared = {**self._engine.shared_state(), "schedule": self._schedule.state_dict()}
        try:
            self._states.write(position.step, record, shared, self._engine.own_state())
        except RunError as error:
            if number or done:
                raise
            self._warn(f"{error}; training goes on and tries again after {minutes:g} minutes", position)
        clock.saved()
        if number:
            raise Stopped(signal.Signals(number), position.step)

    def _warn(self, sentence: str, position: Position) -> None:
        self._log.say(f"warning: step {position.step}: {sentence}")
        self._log.write("warning", position.step, {"message": sentence})


def _on_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: value.to(device, non_blocking=True)
        if isinstance(value, torch.Tensor) and name != "rows"  # asked for on the host, and hardly ever
        else value
        for name, value in batch.items()
    }
