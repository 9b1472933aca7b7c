"""What training asks of a task, and what a task asks of the run's configuration."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

Progress = Callable[[int, int], None]
"""Called with (images done, images in all) while an evaluation runs."""


class Task(Protocol):
    """A model with its data, loss and metrics; its driver owns devices, processes, optimiser and files.

    Wherever a method takes `model`, that is `self.model` or an engine's wrapping of it.
    """

    name: str
    model: nn.Module
    """Built from the configuration, on the CPU in float32; the same on every rank."""
    headlines: tuple[str, ...]
    """The names that `headline` may give: one of them can choose the best checkpoint."""
    broken: int
    """How many different training images this process could not decode so far, since it was started: a
    resumed run counts anew (see `data.broken`)."""

    def steps_per_epoch(self, world_size: int, epoch: int = 0, start: int = 0) -> int:
        """Batches that each rank gets in an epoch, see `batches`. Plans are made by that of epoch 0."""
        ...

    def batches(
        self, epoch: int, rank: int, world_size: int, skip: int = 0, start: int = 0
    ) -> Iterator[dict[str, Tensor]]:
        """The batches of one rank in one epoch without the first `skip`: CPU tensors, images maybe on a GPU.

        `rows`, int64, says which images a batch holds; it stays on the CPU.
        A pure function of the configuration and the arguments. Step by step the ranks read one list of
        batches from left to right, from number `start` on: what other numbers of ranks have shown of it.
        """
        ...

    def size(self, batch: Mapping[str, Tensor]) -> dict[str, int]:
        """How much a batch holds: {"images": ..., "pairs": ...}."""
        ...

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """Floating point operations of a forward and backward of a batch, which is on the CPU still."""
        ...

    def keys(self, rows: Sequence[int]) -> list[str]:
        """The images of a batch's `rows`, as messages call them."""
        ...

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """(0-d loss to differentiate, further scalars to log, detached) of a batch on the model's device."""
        ...

    def parameter_groups(self, model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """The trained parameters with their names, each once: {"backbone": [...], "transformer": [...]}."""
        ...

    def evaluate(self, model: nn.Module, progress: Progress | None = None, limit: int | None = None) -> dict:
        """The metrics by split. limit: at most so many images a split, in place of the configuration's."""
        ...

    def headline(self, metrics: Mapping) -> dict[str, float | None]:
        """The few figures to know first, of what `evaluate` returned: those of the first split."""
        ...

    def save(self, model: nn.Module, directory: str | Path) -> None:
        """Writes what somebody who did not train it needs to use the model."""
        ...

    def summary(self, metrics: Mapping) -> list[tuple[str, str]]:
        """Rows (what, figure) of the closing table, of what `evaluate` returned."""
        ...


def unwrapped(model: nn.Module) -> nn.Module:
    """The task's own module inside an engine's wrapping."""
    inner = getattr(model, "module", None)
    return unwrapped(inner) if isinstance(inner, nn.Module) else model


def percent(share: float | None) -> str:
    """A share as the closing table shows it."""
    return "-" if share is None else f"{100 * share:.1f} %"
