"""The pre-training task: from a run's configuration to model, batches, loss and metrics."""

import logging
from collections.abc import Mapping

from torch import Tensor, nn

from pixelbert_fast.data.batch_list import Batching
from pixelbert_fast.data.records import open_set
from pixelbert_fast.data.vocabulary import train_wordpiece
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertForPreTraining
from pixelbert_fast.model.trained import load_trained_backbone
from pixelbert_fast.model.weights import load_bert
from pixelbert_fast.tasks.architecture import image_processor, model_config, seeded
from pixelbert_fast.tasks.batched import PairTask
from pixelbert_fast.tasks.pretraining.batches import PretrainingBatches, PretrainingOptions
from pixelbert_fast.tasks.pretraining.evaluation import evaluate
from pixelbert_fast.tasks.pretraining.figures import batch_flops, words_right
from pixelbert_fast.tasks.pretraining.sets import open_sets
from pixelbert_fast.tasks.pretraining.start import check_checkpoint, load_checkpoint, load_tokenizer
from pixelbert_fast.tasks.protocol import Progress, percent, unwrapped

logger = logging.getLogger(__name__)

# The headline's names, and those of the figures in an evaluation.
_HEADLINE = {
    "itm_accuracy": "itm_accuracy",
    "mlm_content_accuracy": "mlm_accuracy_content",
    "mlm_content_accuracy_wrong_image": "mlm_accuracy_content_wrong_image",
}


class PretrainingTask(PairTask):
    """Masked language modelling and image-text matching (see `protocol.Task`).

    The tokenizer is the given one, else the one of the checkpoint or BERT that training starts from, else a
    vocabulary trained on the captions of the training split.

    Raises UserError for a set, tokenizer, checkpoint or option that does not fit.
    """

    name = "pretrain"
    headlines = tuple(_HEADLINE)

    def __init__(self, config, device="cpu"):
        self._config = config
        parts, self._evaluated = open_sets(config)
        if config.start.checkpoint:
            check_checkpoint(config.start.checkpoint)
        saved = config.tokenizer.path or config.start.checkpoint or config.start.bert
        if saved:
            self.tokenizer = load_tokenizer(saved)
        else:
            other = config.tokenizer.texts
            spoken = [
                open_set(one).split("train") for one in ([other] if isinstance(other, str) else other or [])
            ]
            splits = spoken or [part.split for part in parts]
            texts = (text for split in splits for own in split["captions"][:] for text in own)
            self.tokenizer = train_wordpiece(texts, config.tokenizer.size)
        objectives = config.objectives
        built = model_config(
            config,
            vocab_size=len(self.tokenizer),
            pad_token_id=self.tokenizer.pad_token_id,
            mlm=objectives.mlm,
            itm=objectives.itm,
            mlm_on_mismatched=objectives.mlm_on_mismatched,
        )
        if config.data.max_text_length > built.max_position_embeddings:
            raise UserError(
                f"data.max_text_length is {config.data.max_text_length}, but the model reads at most "
                f"{built.max_position_embeddings} word pieces; lower it, or set max_position_embeddings in "
                "model.overrides"
            )
        self.image_processor = image_processor(config, built)
        with seeded(config.seed):
            self.model = PixelBertForPreTraining(built, fast=config.model.fast)
        self._start()
        self._options = PretrainingOptions(
            images_per_batch=config.training.images_per_batch,
            captions_per_image=config.data.captions_per_image,
            # Without the matching objective a mismatched pair would teach nothing.
            mismatched_share=config.data.mismatched_share if objectives.itm else 0.0,
            max_text_length=config.data.max_text_length,
            # Without the word objective the text is left whole, as it is met later.
            mlm_probability=objectives.mlm_probability if objectives.mlm else 0.0,
            mlm_on_mismatched=objectives.mlm_on_mismatched,
            text_only=config.start.text_only,
            seed=config.seed,
            epoch=config.data.epoch or ("images" if config.data.sets else None),
            batching=Batching(**config.data.batching.model_dump()) if config.data.batching else None,
            decoder=config.data.decoder,
            device=device,
            broken_limit=config.data.broken_limit,
        )
        self._batches = PretrainingBatches(parts, self.tokenizer, self.image_processor, self._options)
        if self._batches.truncated:
            logger.warning(
                "%d captions are longer than %d word pieces and are cut (data.max_text_length)",
                self._batches.truncated,
                config.data.max_text_length,
            )
        if self._batches.sizes is not None:
            logger.info("%s", self._batches.sizes.described())

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        return batch_flops(self.model.config, batch, fast=self._config.model.fast)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = {name: value for name, value in batch.items() if name != "rows"}
        # One seed for the run: the sample keys, which hold the epoch, make every draw of pixels another one.
        outputs = model(**inputs, seed=self._config.seed)
        scalars = {
            "mlm_loss": outputs.mlm_loss,
            "itm_loss": outputs.itm_loss,
            "mlm_accuracy": words_right(outputs.mlm_logits, batch["labels"]),
            "itm_accuracy": (outputs.itm_logits.argmax(dim=-1) == batch["matched"]).float().mean(),
        }
        return outputs.loss, {name: value.detach() for name, value in scalars.items()}

    def evaluate(self, model: nn.Module, progress: Progress | None = None, limit: int | None = None) -> dict:
        return {
            name: evaluate(
                unwrapped(model),
                split,
                self.tokenizer,
                self.image_processor,
                self._options,
                word_categories=categories,
                limit=limit or self._config.evaluation.images,
                progress=progress,
            )
            for name, (split, categories) in self._evaluated.items()
        }

    def headline(self, metrics: Mapping) -> dict[str, float | None]:
        """Matching accuracy, and that of content words beside the right and beside a wrong image."""
        first = next(iter(metrics.values()), None)
        return {name: first[figure] for name, figure in _HEADLINE.items()} if first else {}

    def summary(self, metrics: Mapping) -> list[tuple[str, str]]:
        rows = []
        for split, figures in metrics.items():
            rows.append((f"{split}: matching accuracy", percent(figures["itm_accuracy"])))
            if "itm_accuracy_novel" in figures:
                novel, seen = percent(figures["itm_accuracy_novel"]), percent(figures["itm_accuracy_seen"])
                rows.append((f"{split}: matching, new combinations / known ones", f"{novel} / {seen}"))
            rows.append((f"{split}: masked words, all", percent(figures["mlm_accuracy_all"])))
            own, other = figures["mlm_accuracy_content"], figures["mlm_accuracy_content_wrong_image"]
            rows.append(
                (f"{split}: content words, right / wrong image", f"{percent(own)} / {percent(other)}")
            )
            for category, pair in figures["words"].items():
                shown = f"{percent(pair['right_image'])} / {percent(pair['wrong_image'])}"
                rows.append((f"{split}:   {category}", f"{shown} ({pair['items']})"))
        return rows

    def _start(self) -> None:
        start = self._config.start
        if start.checkpoint:
            load_checkpoint(self.model, start.checkpoint)
        if start.bert:
            load_bert(self.model, start.bert)
        if start.backbone:
            load_trained_backbone(self.model.pixelbert.backbone, start.backbone)
