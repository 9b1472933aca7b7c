"""The processes of one run, as the loop sees them: who this one is, and the few words they exchange.

What they exchange goes over gloo and CPU tensors, beside GPUs too, so that agreeing never waits for a device.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pixelbert_fast.errors import RunError, UserError

T = TypeVar("T")

# Building a data set or evaluating can keep the first process busy for hours while the others wait.
PATIENCE = datetime.timedelta(hours=24)


class PeerError(Exception):
    """Another process of the run failed and has said why; `status` is the exit status it leaves with."""

    def __init__(self, status: int) -> None:
        super().__init__("another process of this run failed")
        self.status = status


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank, world: its number and how many there are.
        local_rank, local_world: the same on this machine.
        group: the gloo group they talk over; None where `world` is 1.
        roll: a `roll_call.RollCall`, which knows who is still there; None where `world` is 1.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    group: Any = None
    roll: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def explained(self, error: BaseException) -> BaseException:
        """What to end with in the place of `error`: of a broken connection, who has died."""
        return error if self.roll is None else self.roll.explained(error)

    def finished(self) -> None:
        """This process's part of the run is done."""
        if self.roll is not None:
            self.roll.stop()

    def barrier(self) -> None:
        """Wait for all."""
        if self.world > 1:
            import torch.distributed as dist

            dist.barrier(group=self.group)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        return max(self.gather(int(flag))) > 0

    def mean(self, values: Sequence[float]) -> list[float]:
        """Each value's mean over the processes; NaN where one has it."""
        if self.world == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.group)
        return (total / self.world).tolist()

    def gather(self, value: int) -> list[int]:
        """Every process's `value`, by rank."""
        if self.world == 1:
            return [value]
        import torch
        import torch.distributed as dist

        values = torch.zeros(self.world, dtype=torch.int64)
        values[self.rank] = value
        dist.all_reduce(values, group=self.group)
        return values.tolist()

    def collect(self, value: T) -> list[T]:
        """Every process's `value`, any that can be pickled, by rank."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.group)
        return values

    def first_does(self, work: Callable[[], T]) -> T:
        """Run `work` in the first process only and give its result to all.

        Raises in the first process what `work` raised, and `PeerError` in the others.
        """
        if self.world == 1:
            return work()
        import torch.distributed as dist

        # [status, result]; a status of 0 means that the result is there.
        message: list[Any] = [0, None]
        if not self.first:
            dist.broadcast_object_list(message, src=0, group=self.group)
            if message[0]:
                raise PeerError(message[0])
            return message[1]
        try:
            message[1] = work()
        except BaseException as error:
            dist.broadcast_object_list([exit_status(error), None], src=0, group=self.group)
            raise
        dist.broadcast_object_list(message, src=0, group=self.group)
        return message[1]


def exit_status(error: BaseException) -> int:
    """The status a process ends with because of `error`: 2 a user's mistake, 130 Ctrl-C, else 1."""
    if isinstance(error, PeerError):
        return error.status
    if isinstance(error, UserError):
        return 2
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def launched() -> bool:
    """Whether a launcher started this process as one of a group (DeepSpeed's, torchrun)."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def ranks_from_environment(group: Any = None, roll: Any = None) -> Ranks:
    """The place a launcher gave this process.

    Raises:
        RunError: the launcher's variables are not numbers.
    """
    try:
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        world = int(os.environ.get("WORLD_SIZE", "1"))
        rank = int(os.environ.get("RANK", str(local_rank)))
        # DeepSpeed's launcher says LOCAL_SIZE, torchrun LOCAL_WORLD_SIZE.
        local_world = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or "1")
    except ValueError as error:
        raise RunError(
            f"the launcher's RANK, LOCAL_RANK, WORLD_SIZE or LOCAL_SIZE is no number: {error}"
        ) from None
    return Ranks(rank, world, local_rank, local_world, group, roll)


def name_accelerator() -> None:
    """Tell DeepSpeed that there is no GPU, where there is none; its own look for one warns.

    It is imported without being used, too: by transformers, to save a model, where it is installed.
    """
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def threads_per_process(ranks: Ranks) -> int:
    """This machine's usable cores divided among its processes, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // ranks.local_world, 1)
