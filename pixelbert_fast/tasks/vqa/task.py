"""The task of visual question answering: from a run's configuration to model, batches, loss and metrics."""

import logging
from collections.abc import Mapping

from torch import Tensor, nn

from pixelbert_fast.data.records import open_set
from pixelbert_fast.model.vqa import PixelBertForVisualQuestionAnswering, answer_labels
from pixelbert_fast.tasks.architecture import evaluation_splits
from pixelbert_fast.tasks.fine_tuning import FineTuningTask, prepare
from pixelbert_fast.tasks.protocol import Progress, percent, unwrapped
from pixelbert_fast.tasks.sized_images import SizedImages
from pixelbert_fast.tasks.vqa.batches import VqaBatches
from pixelbert_fast.tasks.vqa.evaluation import EvaluationOptions, accuracies, answers
from pixelbert_fast.tasks.vqa.questions import Questions, answer_vocabulary, check_asks, question_texts

logger = logging.getLogger(__name__)


class VqaTask(FineTuningTask):
    """Visual question answering among many answers with soft scores (see `protocol.Task`).

    The answers are the set's own list; a set without one has those of its training questions.

    Raises UserError for a set, tokenizer, checkpoint or option that does not fit.
    """

    name = "vqa"
    headlines = ("vqa_accuracy",)

    def __init__(self, config, device="cpu"):
        super().__init__(config, device)
        built = open_set(config.data.directory)
        splits = [built.split(name) for name in config.vqa.train_splits]
        self._evaluated = evaluation_splits(built, config)
        for name, split in [*zip(config.vqa.train_splits, splits, strict=True), *self._evaluated.items()]:
            check_asks(split, f"the split {name!r} of {built.directory}")
        for name in config.vqa.train_splits:
            if name in self._evaluated:
                logger.warning(
                    "the split %r is trained on and evaluated: its accuracy will not be one of new questions "
                    "(evaluation.splits)",
                    name,
                )
        split = _together(splits)
        told = answer_vocabulary(built, split)
        self.take(
            prepare(
                config,
                PixelBertForVisualQuestionAnswering,
                lambda: question_texts(split),
                **answer_labels(told),
            )
        )
        questions = Questions(split, told, self.tokenizer, config.data.max_text_length)
        images = SizedImages(split, self.image_processor, config, device)
        self._batches = VqaBatches(questions, images, config)
        if questions.texts.truncated:
            logger.warning(
                "%d questions are longer than %d word pieces and are cut (data.max_text_length)",
                questions.texts.truncated,
                config.data.max_text_length,
            )
        if self._batches.left_out:
            logger.info("%d questions without a known answer are not trained on", self._batches.left_out)
        if images.plan is not None:
            logger.info("%s", images.plan.described())

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = {name: value for name, value in batch.items() if name != "rows"}
        # One seed for the run: the sample keys, which hold the epoch, make every draw of pixels another one.
        outputs = model(**inputs, seed=self._config.seed)
        best = outputs.logits.detach().argmax(dim=-1, keepdim=True)
        return outputs.loss, {"score": batch["labels"].gather(1, best).mean()}

    def evaluate(self, model: nn.Module, progress: Progress | None = None, limit: int | None = None) -> dict:
        config = self._config
        batching = config.data.batching
        options = EvaluationOptions(
            max_text_length=config.data.max_text_length,
            images_per_batch=config.training.images_per_batch,
            pixels=batching.pixels if batching else None,
            text_only=config.start.text_only,
            decoder=config.data.decoder,
            device=self._device,
        )
        limit = limit or config.evaluation.images
        given = unwrapped(model), self.tokenizer, self.image_processor
        return {
            name: accuracies(
                answers(given[0], split, *given[1:], options, limit=limit, progress=progress),
                edition=config.vqa.edition,
                known=given[0].config.label2id,
            )
            for name, split in self._evaluated.items()
        }

    def headline(self, metrics: Mapping) -> dict[str, float | None]:
        """The official accuracy, in 0..1."""
        first = next(iter(metrics.values()), None)
        return {"vqa_accuracy": first["accuracy"]} if first else {}

    def summary(self, metrics: Mapping) -> list[tuple[str, str]]:
        return [row for split, figures in metrics.items() for row in table(split, figures)]


def table(split: str, figures: Mapping) -> list[tuple[str, str]]:
    """Rows (what, figure) of one split's accuracies."""
    rows = [(f"{split}: accuracy", f"{percent(figures['accuracy'])} ({figures['questions']})")]
    for name, one in figures["by_answer_type"].items():
        rows.append((f"{split}:   {name}", f"{percent(one['accuracy'])} ({one['questions']})"))
    return rows


def _together(splits: list):
    if len(splits) == 1:
        return splits[0]
    from datasets import concatenate_datasets

    return concatenate_datasets(splits)
