"""What a pre-trained model reads from images it was not trained on."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pixelbert_fast.data.captions import lengths_mask
from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.data.records import spread
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.eval_mode import eval_mode
from pixelbert_fast.tasks.pretraining.batches import PretrainingOptions
from pixelbert_fast.tasks.pretraining.masking import IGNORED
from pixelbert_fast.tasks.pretraining.questions import Question, Questions, image_batches


def evaluate(
    model: nn.Module,
    split,
    tokenizer,
    image_processor,
    options: PretrainingOptions,
    *,
    word_categories: Mapping[str, Sequence[str]] | None = None,
    limit: int | None = None,
    sequences_per_pass: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Accuracies of a PixelBertForPreTraining on a split, in eval mode with every pixel of each image.

    split: rows as of a built set. options: captions are cut and images blanked as in training; the rest of
    it does not count. limit: at most so many images, spread evenly over the split. progress: called with
    (images done, images).

    Returns a dict of numbers:

    - `itm_accuracy` of `itm_pairs` pairs: each image with its captions, and with as many captions that are
    not its own
      (false of it, where the set knows); `itm_accuracy_matched`, `itm_accuracy_mismatched`: the two halves
      apart; `itm_accuracy_novel`, `itm_accuracy_seen`, where the set marks images of things held out of
      training.
    - `mlm_accuracy_all` of `mlm_tokens_all` masked tokens, chosen as in training but always shown as the
    mask. - `mlm_accuracy_content` and `mlm_accuracy_content_wrong_image` of `mlm_words_content` words of
    `word_categories`, one
      masked a caption, read beside its own image and beside another; and the same by category in
      `words[category]`: `right_image`, `wrong_image`, `items`. A word is right when all its pieces are.
    - `images`, and `dropped`, the pairs left out because no false caption was found.

    An accuracy of nothing is None. The model's training mode is put back afterwards.
    """
    if len(split) < 2:
        raise UserError(f"an evaluation needs a split of at least 2 images, this one has {len(split)}")
    if limit is not None and limit < len(split):
        split = split.select(spread(len(split), max(limit, 2)))
    questions = Questions(split, tokenizer, options, word_categories or {})
    images = DecodedImages(
        split, image_processor, cache_megabytes=0, decoder=options.decoder, device=options.device
    )
    read = images.blank if options.text_only else images.pixels
    batches = image_batches(len(split), options.images_per_batch)
    done, answers = 0, []
    with eval_mode(model), torch.no_grad():
        for rows in batches:
            asked = questions.about(rows)
            answers += _answers(model, read(rows), asked, questions.pad_id, sequences_per_pass)
            done += len(rows)
            if progress is not None:
                progress(done, len(split))
    return {"images": len(split), "dropped": questions.dropped, **_figures(answers)}


def _answers(
    model: nn.Module, pixels: tuple[Tensor, Tensor], asked: list[Question], pad_id: int, per_pass: int
) -> list[Question]:
    """The questions with `correct` filled in; the images pass through the backbone once."""
    device = next(model.parameters()).device
    pixel_values, pixel_size = (one.to(device) for one in pixels)
    embeddings = model.pixelbert.embed_pixels(pixel_values, pixel_size)
    # Sequences of like length together, so that little of a pass is padding.
    asked = sorted(asked, key=lambda question: len(question.ids))
    for start in range(0, len(asked), per_pass):
        part = asked[start : start + per_pass]
        ids, labels, mask = _padded(part, pad_id, device)
        image_index = torch.tensor([question.image for question in part], device=device)
        outputs = model(ids, mask, pixel_embeddings=embeddings, image_index=image_index, labels=labels)
        chosen = labels != IGNORED
        words = (outputs.mlm_logits.argmax(dim=-1) == labels[chosen]).cpu().numpy()
        says_match = (outputs.itm_logits.argmax(dim=-1) == 1).cpu().numpy()
        ends = chosen.sum(dim=1).cumsum(0).cpu().numpy()
        for place, question in enumerate(part):
            right = words[ends[place] - int((question.labels != IGNORED).sum()) : ends[place]]
            if question.matched is not None:
                question.correct = np.array([says_match[place] == question.matched])
            elif question.category is not None:
                question.correct = np.array([right.all()])
            else:
                question.correct = right
    return asked


def _padded(part: list[Question], pad_id: int, device) -> tuple[Tensor, Tensor, Tensor]:
    length = max(len(question.ids) for question in part)
    ids = np.full((len(part), length), pad_id, dtype=np.int64)
    labels = np.full((len(part), length), IGNORED, dtype=np.int64)
    for place, question in enumerate(part):
        ids[place, : len(question.ids)] = question.ids
        labels[place, : len(question.ids)] = question.labels
    mask = lengths_mask([question.ids for question in part], length)
    return tuple(torch.from_numpy(one).to(device) for one in (ids, labels, mask))


def _figures(answers: list[Question]) -> dict:
    pairs = [answer for answer in answers if answer.matched is not None]
    tokens = [answer for answer in answers if answer.matched is None and answer.category is None]
    words = [answer for answer in answers if answer.category is not None]
    figures = {
        "itm_accuracy": _share(pairs),
        "itm_accuracy_matched": _share(answer for answer in pairs if answer.matched),
        "itm_accuracy_mismatched": _share(answer for answer in pairs if not answer.matched),
        "itm_pairs": len(pairs),
    }
    if any(answer.novel is not None for answer in pairs):
        figures["itm_accuracy_novel"] = _share(answer for answer in pairs if answer.novel)
        figures["itm_accuracy_seen"] = _share(answer for answer in pairs if not answer.novel)
    overall = _beside_both(words)
    figures |= {
        "mlm_accuracy_all": _share(tokens),
        "mlm_tokens_all": sum(len(answer.correct) for answer in tokens),
        "mlm_accuracy_content": overall["right_image"],
        "mlm_accuracy_content_wrong_image": overall["wrong_image"],
        "mlm_words_content": overall["items"],
    }
    categories = sorted({answer.category for answer in words})
    figures["words"] = {
        category: _beside_both([answer for answer in words if answer.category == category])
        for category in categories
    }
    return figures


def _beside_both(words: list[Question]) -> dict:
    right = [answer for answer in words if answer.right_image]
    wrong = [answer for answer in words if not answer.right_image]
    return {"right_image": _share(right), "wrong_image": _share(wrong), "items": len(right)}


def _share(answers: Iterable[Question]) -> float | None:
    """The share of right answers, None where nothing was asked."""
    correct = [answer.correct for answer in answers]
    return float(np.concatenate(correct).mean()) if correct else None
