"""The task of image-text retrieval: from a run's configuration to model, batches, loss and metrics."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pixelbert_fast.data.records import open_set
from pixelbert_fast.model.retrieval import PixelBertForImageTextRetrieval
from pixelbert_fast.model.task_flops import retrieval_flops
from pixelbert_fast.tasks.architecture import evaluation_splits
from pixelbert_fast.tasks.fine_tuning import FineTuningTask, prepare
from pixelbert_fast.tasks.protocol import Progress, unwrapped
from pixelbert_fast.tasks.retrieval.batches import RetrievalBatches, Texts
from pixelbert_fast.tasks.retrieval.evaluation import (
    EvaluationOptions,
    figures,
    rows,
    scored,
    working_folder,
)
from pixelbert_fast.tasks.retrieval.identity import weights_signature
from pixelbert_fast.tasks.retrieval.scoring import ScoringOptions
from pixelbert_fast.tasks.retrieval.visuals import CachedVisuals, visual_inputs
from pixelbert_fast.tasks.sized_images import SizedImages

logger = logging.getLogger(__name__)


class RetrievalTask(FineTuningTask):
    """Ranking an image's own text above others (see `protocol.Task`; paper, section 4.2).

    Raises UserError for a set, tokenizer, checkpoint or option that does not fit.
    """

    name = "retrieval"
    headlines = ("tr_r1", "ir_r1")

    def __init__(self, config, device="cpu"):
        super().__init__(config, device)
        built = open_set(config.data.directory)
        split = built.split("train")
        self._evaluated = evaluation_splits(built, config)
        said = (text for own in split["captions"][:] for text in own)
        self.take(prepare(config, PixelBertForImageTextRetrieval, lambda: said))
        options = config.retrieval
        if config.start.checkpoint and self.model.score_head.fresh:
            logger.warning("%s has no match head: the score starts at random", config.start.checkpoint)
        freeze(self.model, options)
        texts = Texts(split, self.tokenizer, config)
        if texts.tokenised.truncated:
            logger.warning(
                "%d captions are longer than %d word pieces and are cut (data.max_text_length)",
                texts.tokenised.truncated,
                config.data.max_text_length,
            )
        if options.cache == "none":
            visuals = SizedImages(split, self.image_processor, config, device)
        else:
            visuals = CachedVisuals(split, self.image_processor, config, self.model, device)
        self._batches = RetrievalBatches(texts, visuals, config)

    def size(self, batch: Mapping[str, Tensor]) -> dict[str, int]:
        """An image and its right text are a pair; the wrong ones are not counted."""
        return {"images": len(batch["rows"]), "pairs": len(batch["rows"])}

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """Of what is run: the pass that finds the hardest, the pass that learns; not what was cached."""
        built, options = self.model.config, self._config.retrieval
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        of_images = self._pixels_read(batch)
        pixels = of_images[batch["image_index"].long()].tolist()
        hardest = min(options.hardest or options.negatives, options.negatives)
        # The map's size as that of an image which gives such a map.
        stride = built.output_stride
        maps = [stride * side for side in batch["features"].shape[2:]] if "features" in batch else (0, 0)
        found = retrieval_flops(
            built,
            image_size=tuple(batch["pixel_values"].shape[2:]) if "pixel_values" in batch else tuple(maps),
            images=len(batch["rows"]),
            image_pixels=of_images.tolist(),
            sequences=len(lengths),
            text_length=lengths,
            pixels=pixels,
            # Which are the hardest is not known yet: as many of the mean length.
            learnt=len(batch["groups"]) * (1 + hardest),
            learnt_text_length=sum(lengths) // max(len(lengths), 1),
            learnt_pixels=sum(pixels) // max(len(pixels), 1),
            kept=options.cache,
            frozen=options.freeze_backbone,
            hardest=options.hardest is not None,
            fast=self._config.model.fast,
        )
        return sum(found.values())

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        inner = unwrapped(model).pixelbert
        if self._config.retrieval.freeze_backbone:
            inner.backbone.eval()  # its norms' statistics are frozen too
        outputs = model(
            batch["input_ids"],
            batch["attention_mask"],
            **visual_inputs(batch, inner.draws()),
            image_index=batch["image_index"],
            groups=batch["groups"],
            hardest=self._config.retrieval.hardest,
            # One seed for the run: the sample keys, which hold the epoch, make every draw another one.
            seed=self._config.seed,
            sample_keys=batch["sample_keys"],
        )
        groups = batch["groups"]
        within = outputs.scores.detach().float()[groups.clamp(min=0)].masked_fill(groups < 0, -torch.inf)
        first = (within[:, :1] > within[:, 1:]).all(dim=1).float().mean()
        return outputs.loss, {"right_first": first}

    def evaluate(self, model: nn.Module, progress: Progress | None = None, limit: int | None = None) -> dict:
        config = self._config
        batching = config.data.batching
        options = EvaluationOptions(
            max_text_length=config.data.max_text_length,
            images_per_pass=config.training.images_per_batch,
            pixels=batching.pixels if batching else None,
            captions=config.retrieval.captions,
            text_only=config.start.text_only,
            decoder=config.data.decoder,
            device=self._device,
            scoring=ScoringOptions(config.retrieval.scoring_precision, config.retrieval.scoring_megabytes),
        )
        # By the weights: a run that was stopped while it evaluated goes on with the blocks that are there.
        unfinished = Path(config.output) / "evaluation"
        own = unfinished / weights_signature(unwrapped(model))[:16]
        for other in unfinished.glob("*") if unfinished.is_dir() else ():
            if other != own:
                shutil.rmtree(other, ignore_errors=True)
        found = {}
        limit = limit or config.evaluation.images
        for name, split in self._evaluated.items():
            # Also by what is asked: the last evaluation may be of other images than those on the way.
            with working_folder(own / f"{name}-{limit or 'all'}") as folder:
                given = unwrapped(model), split, self.tokenizer, self.image_processor, options, folder
                found[name] = figures(scored(*given, limit=limit, progress=progress))
        shutil.rmtree(unfinished, ignore_errors=True)
        return found

    def headline(self, metrics: Mapping) -> dict[str, float | None]:
        """Recall at 1, image to text and text to image, in 0..1."""
        first = next(iter(metrics.values()), None)
        return {name: first[name] for name in self.headlines} if first else {}

    def summary(self, metrics: Mapping) -> list[tuple[str, str]]:
        return [row for split, told in metrics.items() for row in rows(split, told)]

    def _pixels_read(self, batch: Mapping[str, Tensor]) -> Tensor:
        """int64 ``[B]``."""
        if "valid_grid" in batch:
            return batch["valid_grid"].long().prod(dim=1)
        size = batch.get("pixel_size")
        if size is None:
            size = torch.tensor([batch["pixel_values"].shape[2:]]).expand(len(batch["rows"]), 2)
        return (self.model.pixelbert.backbone.map_size(size.long()) // 2).prod(dim=1)


def freeze(model: PixelBertForImageTextRetrieval, options) -> None:
    """Freezes what a run's `retrieval` section says, which is all that goes before what is kept."""
    inner = model.pixelbert
    if options.freeze_backbone:
        inner.backbone.requires_grad_(False)
    if options.cache == "embeddings":
        inner.pixel_projection.requires_grad_(False)
        inner.pixel_type_embedding.requires_grad_(False)
