"""The NLVR2 task: from a run's configuration to model, batches, loss and metrics."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertForNaturalLanguageVisualReasoning
from pixelbert_fast.tasks.fine_tuning import FineTuningTask, prepare
from pixelbert_fast.tasks.nlvr2.batches import PairBatches
from pixelbert_fast.tasks.nlvr2.evaluation import judge, table
from pixelbert_fast.tasks.nlvr2.statements import UNKNOWN, Statements
from pixelbert_fast.tasks.protocol import Progress, unwrapped

logger = logging.getLogger(__name__)


class NLVR2Task(FineTuningTask):
    """Whether a statement is true of two images (see `protocol.Task`).

    Raises UserError for a set without statements about pairs, and as `fine_tuning.prepare`.
    """

    name = "nlvr2"
    headlines = ("accuracy", "consistency")

    def __init__(self, config, device="cpu"):
        super().__init__(config, device)
        built = open_set(config.data.directory)
        split, pairs = built.split("train"), built.pairs("train")
        self.take(prepare(config, PixelBertForNaturalLanguageVisualReasoning, lambda: pairs["statement"][:]))
        self._batches = PairBatches(split, pairs, self.tokenizer, self.image_processor, config, device)
        own = self._batches.statements
        if (own.labels == UNKNOWN).all():
            raise UserError(f"no statement of {built.directory}'s train has a label; build it with them")
        if own.truncated:
            logger.warning(
                "%d statements are longer than %d word pieces and are cut (data.max_text_length)",
                own.truncated,
                config.data.max_text_length,
            )
        # Opened now, so that a split that is not there is told before training.
        self._evaluated = {name: (built.split(name), built.pairs(name)) for name in config.evaluation.splits}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = {name: value for name, value in batch.items() if name != "rows"}
        # As in pre-training: the sample keys, which hold the epoch, make every draw of pixels another one.
        outputs = model(**inputs, seed=self._config.seed)
        return outputs.loss, {"accuracy": _right(outputs.logits.detach(), batch["labels"])}

    def evaluate(self, model: nn.Module, progress: Progress | None = None, limit: int | None = None) -> dict:
        config = self._config
        batching, found = config.data.batching, {}
        for name, (split, pairs) in self._evaluated.items():
            judged = judge(
                unwrapped(model),
                split,
                Statements(pairs, self.tokenizer, config.data.max_text_length),
                self.image_processor,
                images_per_pass=config.training.images_per_batch,
                pixels=batching.pixels if batching else None,
                limit=limit or config.evaluation.images,
                text_only=config.start.text_only,
                decoder=config.data.decoder,
                device=self._device,
                progress=progress,
            )
            found[name] = judged.metrics()
        return found

    def headline(self, metrics: Mapping) -> dict[str, float | None]:
        """Accuracy and consistency."""
        first = next(iter(metrics.values()), {})
        return {name: first[name] for name in self.headlines if name in first}

    def summary(self, metrics: Mapping) -> list[tuple[str, str]]:
        return [row for split, figures in metrics.items() for row in table(split, figures)]


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of statements with a label that are judged right, 0-d float32; 0 of none."""
    known = labels != UNKNOWN
    right = (logits.argmax(dim=-1) == labels) & known
    return right.sum(dtype=torch.float32) / known.sum().clamp(min=1)
