"""What every task answers training in the same way: out of its batches, and by its parameters' names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from pixelbert_fast.data.processor import PixelBertImageProcessor, PixelBertProcessor
from pixelbert_fast.tasks.protocol import unwrapped
from pixelbert_fast.tasks.quiet import without_bars


class Batches(Protocol):
    """The batches of a training, of one split or several; see `protocol.Task` for the contracts."""

    broken: int

    def steps_per_epoch(self, world_size: int, epoch: int = 0, start: int = 0) -> int: ...

    def epoch(
        self, epoch: int, rank: int = 0, world_size: int = 1, skip: int = 0, start: int = 0
    ) -> Iterator[dict[str, Tensor]]: ...

    def names(self, rows: Sequence[int]) -> list[str]: ...


class BatchedTask:
    """The part of `protocol.Task` that `_batches` and the names of parameters answer."""

    _batches: Batches
    _backbone = "pixelbert.backbone."
    """What the names of the backbone's parameters begin with."""

    @property
    def broken(self) -> int:
        return self._batches.broken

    def steps_per_epoch(self, world_size: int, epoch: int = 0, start: int = 0) -> int:
        return self._batches.steps_per_epoch(world_size, epoch, start)

    def batches(
        self, epoch: int, rank: int, world_size: int, skip: int = 0, start: int = 0
    ) -> Iterator[dict[str, Tensor]]:
        return self._batches.epoch(epoch, rank, world_size, skip, start)

    def keys(self, rows: Sequence[int]) -> list[str]:
        return self._batches.names(rows)

    def parameter_groups(self, model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {"backbone": [], "transformer": []}
        for name, parameter in unwrapped(model).named_parameters():
            if parameter.requires_grad:
                group = "backbone" if name.startswith(self._backbone) else "transformer"
                groups[group].append((name, parameter))
        return groups


class PairTask(BatchedTask):
    """A task of sequences beside images, whose model is saved as `from_pretrained` reads it."""

    tokenizer: Any
    image_processor: PixelBertImageProcessor
    _config: Any

    def size(self, batch: Mapping[str, Tensor]) -> dict[str, int]:
        return {"images": len(batch["pixel_values"]), "pairs": len(batch["input_ids"])}

    def save(self, model: nn.Module, directory: str | Path) -> None:
        with without_bars():
            unwrapped(model).save_pretrained(directory)
        length = self._config.data.max_text_length
        processor = PixelBertProcessor(self.image_processor, self.tokenizer, max_text_length=length)
        processor.save_pretrained(directory)
