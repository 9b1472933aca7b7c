"""What a model answers to the questions of a split, and how right it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pixelbert_fast.data.captions import TokenisedCaptions, lengths_mask
from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.data.records import spread
from pixelbert_fast.data.sizes import target_sizes
from pixelbert_fast.data.vqa.answers import normalise
from pixelbert_fast.tasks.eval_mode import eval_mode
from pixelbert_fast.tasks.vqa.official import Asked, Edition, VqaAccuracy, asked_of
from pixelbert_fast.tasks.vqa.questions import check_asks

# More are a matter of vocabulary, and their table would be no summary.
_MOST_ANSWERS_TOLD = 50


@dataclass(frozen=True)
class EvaluationOptions:
    """How a split is read; none of it changes an answer beyond rounding, but text_only and max_text_length.

    Attributes:
        max_text_length: word pieces of a question, longer ones are cut.
        images_per_batch: at most; pixels: of a batch, height times width times images, at most.
        sequences_per_pass: questions that go through the Transformer at a time.
        text_only: every image is blank.
        decoder, device: see `DecodedImages`.
    """

    max_text_length: int = 40
    images_per_batch: int = 16
    pixels: int | None = None
    sequences_per_pass: int = 256
    text_only: bool = False
    decoder: str | None = None
    device: torch.device | str = "cpu"


class Answered(NamedTuple):
    """A question with the model's answer."""

    id: int
    answer: str
    asked: Asked | None
    """None where no answers are public."""
    broken: bool = False
    """Whether the image could not be decoded, so that the model saw one colour."""


def answers(
    model: nn.Module,
    split,
    tokenizer,
    image_processor,
    options: EvaluationOptions,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Answered]:
    """The answer with the highest score to each question of a split, as the images are read.

    In eval mode, with every pixel of each image; an image passes through the backbone once, however many
    questions are about it. A broken image is one of the mean colour. Images of like size come together, so
    the order is not the split's. Questions without an id are numbered as they come in the split.

    Args:
        model: a PixelBertForVisualQuestionAnswering, whose `config.id2label` names the answers.
        split: rows as of a built set.
        limit: at most so many images, spread evenly over the split.
        progress: called with (images done, images).

    Raises:
        UserError: the split asks no questions.
    """
    check_asks(split, "the split")
    rows = np.array(spread(len(split), len(split) if limit is None else limit), dtype=np.int64)
    wanted = {"questions", "question_ids", "question_types", "raw_answers"}
    records = split.select_columns([name for name in split.column_names if name in wanted])
    firsts = _first_numbers(records)
    images = DecodedImages(
        split, image_processor, cache_megabytes=0, decoder=options.decoder, device=options.device
    )
    read = images.blank if options.text_only else images.pixels
    done = 0
    with eval_mode(model):
        for batch in _batches(split, rows, image_processor, options):
            told = [records[int(row)] for row in batch]
            chosen = _chosen(model, read(batch), told, tokenizer, options)
            for row, record in zip(batch.tolist(), told, strict=True):
                yield from _answered(record, int(firsts[row]), chosen, images.known_broken(row))
            done += len(batch)
            if progress is not None:
                progress(done, len(rows))


class Accuracies:
    """Collects answers, and gives their official accuracy overall and by type.

    known: all answers that the model can give.
    """

    def __init__(self, edition: Edition = "current", known: Collection[str] = ()):
        self._official, self._asked, self._single = VqaAccuracy(edition=edition), 0, True
        self._known = {normalise(answer) for answer in known}
        self._answerable = self._broken = 0
        self._by_answer: dict[str, list[int | float]] = {}

    def add(self, one: Answered) -> None:
        """Counts a question in."""
        self._asked += 1
        self._broken += one.broken
        if one.asked is None:
            return
        self._answerable += any(normalise(answer) in self._known for answer in one.asked.answers)
        right = self._official.add(one.asked, one.answer)
        self._single = self._single and len(one.asked.answers) == 1
        if self._single and len(self._by_answer) <= _MOST_ANSWERS_TOLD:
            told = self._by_answer.setdefault(one.asked.answers[0], [0, 0.0])
            told[0] += 1
            told[1] += right

    def result(self) -> dict:
        """The figures so far, JSON-able.

        ``{"asked", "broken", "answerable", "questions", "accuracy", "by_answer_type": {...},
        "by_question_type": {...}}``: `asked` counts all questions, `broken` those about images that could not
        be decoded; the others those with public answers, `answerable` where one of these is known, the rest
        as `official.VqaAccuracy.result`; with one annotator a question the accuracy is the share of right
        answers. Where that is so and there are few answers, `by_answer` has the share by right answer. The
        accuracy of no question is None.
        """
        figures = {
            "asked": self._asked,
            "broken": self._broken,
            "answerable": self._answerable,
            **self._official.result(),
        }
        if self._single and 0 < len(self._by_answer) <= _MOST_ANSWERS_TOLD:
            figures["by_answer"] = {
                answer: {"questions": count, "accuracy": right / count}
                for answer, (count, right) in sorted(self._by_answer.items())
            }
        return figures


def accuracies(
    answered: Iterable[Answered], *, edition: Edition = "current", known: Collection[str] = ()
) -> dict:
    """`Accuracies.result` of all of these."""
    collected = Accuracies(edition, known)
    for one in answered:
        collected.add(one)
    return collected.result()


def _first_numbers(records) -> np.ndarray:
    """The number of each image's first question, int64 `[N]`."""
    column = records.select_columns(["questions"]).with_format("arrow")[:]["questions"].combine_chunks()
    counts = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.cumsum(counts) - counts


def _batches(split, rows: np.ndarray, image_processor, options: EvaluationOptions) -> Iterator[np.ndarray]:
    """The rows in batches of like size, within the options' bounds; a single image may be beyond them."""
    recorded = split.select_columns(["height", "width"]).with_format("numpy")[:]
    rule = image_processor
    sizes = target_sizes(
        np.stack([recorded["height"], recorded["width"]], axis=1)[rows],
        *(rule.short_side, rule.long_side, rule.size_divisor, rule.least_side),
    )
    order = np.lexsort((rows, sizes[:, 1], sizes[:, 0]))
    begin, largest = 0, np.zeros(2, dtype=np.int64)
    for place, number in enumerate(order):
        grown = np.maximum(largest, sizes[number])
        count = place - begin + 1
        beyond = options.pixels is not None and int(grown.prod()) * count > options.pixels
        if count > 1 and (count > options.images_per_batch or beyond):
            yield rows[order[begin:place]]
            begin, grown = place, sizes[number]
        largest = grown
    if begin < len(order):
        yield rows[order[begin:]]


@torch.no_grad()  # here, where nothing is yielded: whoever reads the answers may want gradients
def _chosen(
    model: nn.Module, pixels: tuple[Tensor, Tensor], told: list[dict], tokenizer, options: EvaluationOptions
) -> Iterator[str]:
    """The answer to each question about the images of a batch, in order."""
    device = next(model.parameters()).device
    asked = [[one["question"] for one in record["questions"]] for record in told]
    if not any(asked):
        return iter(())
    texts = TokenisedCaptions(asked, tokenizer, options.max_text_length)
    places = [(image, number) for image, own in enumerate(asked) for number in range(len(own))]
    ids = [texts.ids(*place) for place in places]
    pixel_values, pixel_size = (one.to(device) for one in pixels)
    embeddings = model.pixelbert.embed_pixels(pixel_values, pixel_size)
    # Sequences of like length together, so that little of a pass is padding.
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    best = np.zeros(len(ids), dtype=np.int64)
    for start in range(0, len(order), options.sequences_per_pass):
        part = order[start : start + options.sequences_per_pass]
        padded = texts.pad([ids[number] for number in part])
        mask = lengths_mask([ids[number] for number in part], padded.shape[1])
        logits = model(
            torch.from_numpy(padded).to(device),
            torch.from_numpy(mask).to(device),
            pixel_embeddings=embeddings,
            image_index=torch.tensor([places[number][0] for number in part], device=device),
        ).logits
        best[part] = logits.argmax(dim=-1).cpu().numpy()
    names = model.config.id2label
    return (names[int(label)] for label in best)


def _answered(record: dict, first: int, chosen: Iterator[str], broken: bool) -> Iterator[Answered]:
    numbers = record.get("question_ids") or range(first, first + len(record["questions"]))
    known = {asked.id: asked for asked in asked_of(record, first)}
    for number in numbers:
        yield Answered(number, next(chosen), known.get(number), broken)
