"""The part of one process among those that compute images or scores together."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass

import torch.distributed as dist

PATIENCE = datetime.timedelta(days=7)
"""How long a process that is done waits for the slowest; where one dies, the launcher ends the others."""


@dataclass(frozen=True)
class Share:
    """One process among those that work; `barrier` waits for the others."""

    rank: int = 0
    world: int = 1
    barrier: Callable[[], None] | None = None

    def wait(self) -> None:
        if self.barrier is not None:
            self.barrier()


ALONE = Share()


def joined() -> tuple[Share, Callable[[], None]]:
    """The share of this process in torch's process group, if there is one, and what ends it; all call it.

    They wait by a group of their own: the group's own patience (NCCL's ten minutes) is for a step.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return ALONE, lambda: None
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    share = Share(dist.get_rank(), dist.get_world_size(), lambda: dist.barrier(group=group))
    return share, lambda: dist.destroy_process_group(group)
