"""The evaluation, asked of models whose right answers are known beforehand."""

import io
import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch import nn

from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.sampler import random_stream
from pixelbert_fast.data.vocabulary import train_wordpiece
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.pretraining.batches import PretrainingOptions
from pixelbert_fast.tasks.pretraining.evaluation import evaluate
from pixelbert_fast.tasks.pretraining.questions import Questions, image_batches
from pixelbert_fast.tasks.pretraining.words import mask_words

PROCESSOR = PixelBertImageProcessor(short_side=8, long_side=8)
COLOURS = ("red", "blue", "green", "grey", "black")
SHAPES = ("circle", "square", "star")
CATEGORIES = {"colour": COLOURS, "shape": SHAPES, "size": ("huge",)}
OPTIONS = PretrainingOptions(images_per_batch=7, max_text_length=12)
IMAGES = 30


def record(row):
    """An image all of grey level 8 times its row; every third shows something new."""
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 8 * row, dtype=np.uint8)).save(stream, "PNG")
    look = {"colour": COLOURS[row % 5], "shape": SHAPES[row // 5 % 3]}
    said = {
        f"something {look['colour']}": {"colour": look["colour"]},
        f"we see a {look['shape']}": {"shape": look["shape"]},
        f"it shows a {look['colour']} {look['shape']}": look,
    }
    scene = {"objects": [{"attributes": look, "box": [0, 0, 8, 8]}], "ground": {}, "novel": row % 3 == 0}
    return {
        "image": stream.getvalue(),
        "height": 8,
        "width": 8,
        "captions": list(said),
        "facts": [json.dumps({"exist": [fact]}) for fact in said.values()],
        "scene": json.dumps(scene),
    }


@pytest.fixture(scope="module")
def split():
    return Dataset.from_list([record(row) for row in range(IMAGES)])


@pytest.fixture(scope="module")
def tokenizer(split):
    return train_wordpiece([text for own in split["captions"] for text in own], 500)


class Knowing(nn.Module):
    """Reads the row from the image's grey level and answers from the captions of that row."""

    def __init__(self, split, tokenizer):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))
        self.captions = [
            [torch.tensor(tokenizer(text)["input_ids"]) for text in own] for own in split["captions"]
        ]
        self.tokenizer, self.seen, self.pairs = tokenizer, [], []

    @property
    def pixelbert(self):
        return self

    def embed_pixels(self, pixel_values, pixel_size):
        assert not self.training
        assert not torch.is_grad_enabled()
        level = pixel_values[:, 0, 0, 0] * PROCESSOR.image_std[0] + PROCESSOR.image_mean[0]
        rows = (level * 255 / 8).round().long().clamp(0, IMAGES - 1)
        self.seen += rows.tolist()
        return rows

    def completed(self, ids, mask, row):
        """The image's own caption that the text may be, a mask standing for anything; or None."""
        own = ids[mask == 1]
        for caption in self.captions[row]:
            if len(caption) == len(own) and bool(
                ((own == caption) | (own == self.tokenizer.mask_token_id)).all()
            ):
                return torch.cat([caption, ids[len(own) :]])
        return None

    def matches(self, ids, mask, row):
        return self.completed(ids, mask, row) is not None

    def forward(self, input_ids, attention_mask, *, pixel_embeddings, image_index, labels):
        rows = pixel_embeddings[image_index]
        words, says = torch.zeros_like(input_ids), torch.zeros(len(input_ids), 2)
        for place, (ids, mask, row) in enumerate(zip(input_ids, attention_mask, rows.tolist(), strict=True)):
            self.pairs.append((tuple(ids[mask == 1].tolist()), row))
            caption = self.completed(ids, mask, row)
            words[place] = input_ids[place] if caption is None else caption
            says[place, int(self.matches(ids, mask, row))] = 1
        logits = torch.nn.functional.one_hot(words[labels != -100], len(self.tokenizer)).float()
        return SimpleNamespace(mlm_logits=logits, itm_logits=says)


def asked(model, split, tokenizer, options=OPTIONS, **others):
    return evaluate(model, split, tokenizer, PROCESSOR, options, word_categories=CATEGORIES, **others)


def test_a_model_that_knows_the_answers_is_always_right(split, tokenizer):
    model = Knowing(split, tokenizer)
    figures = asked(model, split, tokenizer)
    assert (
        figures["itm_accuracy"] == figures["itm_accuracy_matched"] == figures["itm_accuracy_mismatched"] == 1
    )
    assert figures["itm_pairs"] == 6 * IMAGES
    assert figures["mlm_accuracy_all"] == 1
    # Three captions of 1, 1 and 2 content words, one of them masked; beside another image it is lost.
    assert figures["mlm_words_content"] == 3 * IMAGES
    assert (figures["mlm_accuracy_content"], figures["mlm_accuracy_content_wrong_image"]) == (1, 0)
    assert figures["words"].keys() == {"colour", "shape"}
    assert sum(category["items"] for category in figures["words"].values()) == 3 * IMAGES
    for category in figures["words"].values():
        assert (category["right_image"], category["wrong_image"]) == (1, 0)
    assert figures["itm_accuracy_novel"] == figures["itm_accuracy_seen"] == 1
    # One pass through the backbone an image.
    assert sorted(model.seen) == list(range(IMAGES))


def test_any_answer_by_the_text_alone_is_right_for_half_of_the_pairs(split, tokenizer):
    class ByText(Knowing):
        def matches(self, ids, mask, row):
            return bool(ids.sum() % 2)

    figures = asked(ByText(split, tokenizer), split, tokenizer)
    assert figures["itm_accuracy"] == 0.5
    assert 0 < figures["itm_accuracy_matched"] < 1


def test_always_yes_is_right_for_the_matched_half(split, tokenizer):
    class Yes(Knowing):
        def matches(self, ids, mask, row):
            return True

    figures = asked(Yes(split, tokenizer), split, tokenizer)
    assert figures["itm_accuracy_matched"] == 1
    assert figures["itm_accuracy_mismatched"] == 0
    assert figures["itm_accuracy"] == 0.5


def test_new_and_known_things_are_told_apart(split, tokenizer):
    class Timid(Knowing):
        def matches(self, ids, mask, row):
            return row % 3 != 0 and super().matches(ids, mask, row)

    figures = asked(Timid(split, tokenizer), split, tokenizer)
    assert (figures["itm_accuracy_novel"], figures["itm_accuracy_seen"]) == (0.5, 1)
    plain = split.map(lambda row: {"scene": row["scene"].replace('"novel": true', '"novel": false')})
    assert "itm_accuracy_novel" not in asked(Knowing(plain, tokenizer), plain, tokenizer)


def test_right_and_wrong_image_are_shown_the_same_masked_captions(split, tokenizer):
    # So few random masks that there are none: every mask is that of a content word.
    options = PretrainingOptions(images_per_batch=7, max_text_length=12, mlm_probability=1e-12)
    model = Knowing(split, tokenizer)
    assert asked(model, split, tokenizer, options)["mlm_accuracy_all"] is None
    masked = [(text, row) for text, row in model.pairs if tokenizer.mask_token_id in text]
    assert len(masked) == 2 * 3 * IMAGES
    something = tokenizer("something [MASK]")["input_ids"]
    rows = Counter(row for text, row in masked if list(text) == something)
    # Beside each image once as its own, and once, for each caption, beside some other.
    assert len(rows) == IMAGES
    assert sum(rows.values()) == 2 * IMAGES
    assert all(count % 2 == 0 for count in Counter(text for text, _ in masked).values())


def test_it_is_the_same_every_time_and_disturbs_nothing(split, tokenizer):
    model = Knowing(split, tokenizer).train()
    torch.manual_seed(5)
    first = asked(model, split, tokenizer)
    drawn = torch.rand(3)
    assert model.training
    np.random.seed(1)
    assert asked(model, split, tokenizer) == first
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)


def test_training_mode_comes_back_after_an_error(split, tokenizer):
    class Failing(Knowing):
        def matches(self, ids, mask, row):
            raise ZeroDivisionError

    model = Failing(split, tokenizer).train()
    with pytest.raises(ZeroDivisionError):
        asked(model, split, tokenizer)
    assert model.training


def test_the_twin_sees_zeros(split, tokenizer):
    class Blind(Knowing):
        def embed_pixels(self, pixel_values, pixel_size):
            assert not pixel_values.any()
            return super().embed_pixels(pixel_values, pixel_size)

    options = PretrainingOptions(images_per_batch=7, max_text_length=12, text_only=True)
    figures = asked(Blind(split, tokenizer), split, tokenizer, options)
    assert figures["itm_accuracy"] == 0.5
    assert figures["mlm_accuracy_content"] < 0.5


def test_a_limit_spreads_over_the_split_and_progress_counts_images(split, tokenizer):
    model, reports = Knowing(split, tokenizer), []
    figures = asked(model, split, tokenizer, limit=10, progress=lambda done, of: reports.append((done, of)))
    assert figures["images"] == 10
    assert min(model.seen) == 0
    assert max(model.seen) == IMAGES - 1
    assert reports[-1] == (10, 10)
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})


def test_passes_of_any_size_give_the_same(split, tokenizer):
    whole = asked(Knowing(split, tokenizer), split, tokenizer)
    assert asked(Knowing(split, tokenizer), split, tokenizer, sequences_per_pass=5) == whole


def test_sets_without_truth_or_word_lists_are_evaluated(split, tokenizer):
    bare = split.remove_columns(["facts", "scene"])
    figures = evaluate(Knowing(bare, tokenizer), bare, tokenizer, PROCESSOR, OPTIONS)
    assert figures["words"] == {}
    assert figures["mlm_accuracy_content"] is None
    assert figures["itm_accuracy"] == 1
    assert "itm_accuracy_novel" not in figures


def test_one_image_is_too_few(split, tokenizer):
    with pytest.raises(UserError, match="at least 2 images"):
        asked(Knowing(split, tokenizer), split.select([0]), tokenizer)


def test_the_wrong_image_is_another_one_even_where_every_caption_is_true(split, tokenizer):
    always = [json.dumps({"exist": []})] * 3
    rows = np.arange(4)
    questions = Questions(split.map(lambda row: {"facts": always}), tokenizer, OPTIONS, CATEGORIES)
    words = [question for question in questions.about(rows) if question.category]
    assert len(words) == 2 * 3 * 4
    for right, wrong in zip(words[::2], words[1::2], strict=True):
        assert right.right_image
        assert not wrong.right_image
        assert right.ids is wrong.ids
        assert right.image != wrong.image


@pytest.mark.parametrize(("images", "size"), [(2, 7), (3, 2), (8, 7), (15, 7), (5, 1), (9, 100)])
def test_batches_of_images_hold_at_least_two(images, size):
    batches = image_batches(images, size)
    assert sorted(np.concatenate(batches)) == list(range(images))
    assert min(map(len, batches)) >= 2
    assert max(map(len, batches)) <= max(size, 3)


def test_all_pieces_of_a_word_are_masked():
    tokenizer = train_wordpiece(["a cab", "a bac b c"], 11)
    (item,) = mask_words([["A cab BAC."]], tokenizer, 12, {"noun": ["bac"]}, random_stream(0))
    text = tokenizer("A cab BAC.")
    pieces = [place for place, word in enumerate(text.word_ids()) if word == 2]
    assert len(pieces) > 1
    assert np.flatnonzero(item.labels != -100).tolist() == pieces
    assert (item.ids[pieces] == tokenizer.mask_token_id).all()
    assert item.labels[pieces].tolist() == [text["input_ids"][place] for place in pieces]


def test_each_category_of_a_caption_is_asked_about_as_often():
    tokenizer = train_wordpiece(["red blue green circle"], 100)
    captions = [["red blue green circle"]] * 600
    categories = {"colour": ["red", "blue", "green"], "shape": ["circle"]}
    items = mask_words(captions, tokenizer, 12, categories, random_stream(0))
    shapes = sum(item.category == "shape" for item in items)
    # Six standard deviations of 600 fair draws.
    assert abs(shapes - 300) < 74
    hidden = {int(item.labels[item.labels != -100][0]) for item in items}
    assert len(hidden) == 4
