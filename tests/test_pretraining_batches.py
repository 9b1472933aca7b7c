"""Pre-training batches: the contract, the captions they show, and what they do not depend on."""

import hashlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from pixelbert_fast.batch import PretrainingBatch
from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.vocabulary import train_wordpiece
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.pretraining.batches import PretrainingBatches, PretrainingOptions

PROCESSOR = PixelBertImageProcessor(short_side=16, long_side=32)
OPTIONS = PretrainingOptions(images_per_batch=4, captions_per_image=4, max_text_length=12, seed=3)
COLOURS = ("red", "blue", "green", "grey", "black", "white", "brown")
IMAGES = 22
# Of three ranks' batches of three epochs, taken before sets, epochs and batching could be chosen.
FIRST = (
    ({}, "9ede1fb5a72c9182b88d1148253a50c928380019ffecfe99b2aad64881144a2c"),
    ({"captions_per_image": 6}, "b963aecad4a39d886978e2067ec35d1d8c25d7615727e008d4ea5725ce25d70c"),
    (
        {"mismatched_share": 0.0, "captions_per_image": 2},
        "88d8b64c23e1f2f1eaabb6ef4f3b50db99b5fc138d39a3b5114d0e9a2e5ce701",
    ),
    ({"images_per_batch": 5}, "77972fc2b09df5ba65cb117e4d43fcdf22e4a22229b5f88a02d828815bbe375a"),
)


def record(row):
    """An image all of one grey level, 10 times its row, of which three captions tell the row."""
    pixels = np.full((16, 16 if row % 5 else 24, 3), 10 * row, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    look = {"colour": COLOURS[row % 7], "row": str(row)}
    return {
        "image": stream.getvalue(),
        "height": 16,
        "width": pixels.shape[1],
        "captions": [
            f"something {look['colour']}",
            f"row {row}",
            f"this is row {row} and it is {look['colour']}",
        ],
        "facts": [
            json.dumps({"exist": [fact]}) for fact in ({"colour": look["colour"]}, {"row": str(row)}, look)
        ],
        "scene": json.dumps({"objects": [{"attributes": look, "box": [0, 0, 9, 9]}], "ground": {}}),
    }


@pytest.fixture(scope="module")
def split():
    return Dataset.from_list([record(row) for row in range(IMAGES)])


@pytest.fixture(scope="module")
def tokenizer(split):
    return train_wordpiece([text for own in split["captions"] for text in own], 500)


@pytest.fixture(scope="module")
def made(split, tokenizer):
    return lambda **changes: PretrainingBatches(split, tokenizer, PROCESSOR, replace(OPTIONS, **changes))


def rows_of(batch):
    """The row of each image, read back from its grey level."""
    level = batch["pixel_values"][:, 0, 0, 0] * PROCESSOR.image_std[0] + PROCESSOR.image_mean[0]
    return (level * 25.5).round().int().tolist()


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("changes", "digest"), FIRST)
def test_batches_are_still_those_that_results_were_measured_with(made, changes, digest):
    batches, found = made(**changes), hashlib.sha256()
    for batch in (one for epoch in range(3) for rank in range(3) for one in batches.epoch(epoch, rank, 3)):
        # Rows in place of pixels, whose last bits may differ from one release of a library to the next.
        told = {**batch, "pixel_values": torch.tensor(rows_of(batch))}
        # Came later.
        assert told.pop("rows").tolist() == rows_of(batch)
        for name, value in sorted(told.items()):
            found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode() + value.numpy().tobytes())
    assert found.hexdigest() == digest


def test_a_batch_keeps_the_contract(made):
    batch = next(made().epoch(0))
    assert batch.keys() == PretrainingBatch.__annotations__.keys()
    pairs, length = batch["input_ids"].shape
    assert pairs == 16
    assert batch["attention_mask"].sum(dim=1).max() == length <= 12
    expected = {
        "pixel_values": ((4, 3, 16), torch.float32),
        "pixel_size": ((4, 2), torch.int32),
        "image_index": ((16,), torch.int32),
        "input_ids": ((16, length), torch.int64),
        "attention_mask": ((16, length), torch.int64),
        "labels": ((16, length), torch.int64),
        "matched": ((16,), torch.int64),
        "sample_keys": ((16,), torch.int64),
    }
    for name, (shape, dtype) in expected.items():
        assert (batch[name].shape[: len(shape)], batch[name].dtype) == (shape, dtype), name
    assert batch["image_index"].tolist() == [image for image in range(4) for _ in range(4)]


def test_matched_captions_are_the_images_own_and_others_are_not(made, split, tokenizer):
    captions = split["captions"][:]
    seen = set()
    for batch in made(mlm_probability=0.0).epoch(2):
        rows = rows_of(batch)
        texts = tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
        for text, image, matched in zip(
            texts, batch["image_index"].tolist(), batch["matched"].tolist(), strict=True
        ):
            assert (text in captions[rows[image]]) == bool(matched)
            # What is said of a colour is only false of another colour.
            assert matched or not text.endswith(COLOURS[rows[image] % 7]) or str(rows[image]) not in text
        assert batch["matched"].sum() == 8
        assert (batch["labels"] == -100).all()
        seen.update(rows)
    assert seen == set(range(IMAGES))


def test_words_are_masked_alike_in_both_kinds_of_pairs_and_labelled_in_matched_ones(made, tokenizer):
    masks = {0: 0, 1: 0}
    for epoch in range(6):
        for batch in made(mlm_probability=0.5).epoch(epoch):
            assert (batch["labels"][batch["matched"] == 0] == -100).all()
            assert (batch["labels"][batch["matched"] == 1] != -100).any()
            hidden = (batch["input_ids"] == tokenizer.mask_token_id).sum(dim=1)
            for kind in masks:
                masks[kind] += int(hidden[batch["matched"] == kind].sum())
    # Some 500 masks of each kind: six standard deviations are 190.
    assert min(masks.values()) > 300
    assert abs(masks[0] - masks[1]) < 190
    everywhere = next(made(mlm_probability=0.5, mlm_on_mismatched=True).epoch(0))
    assert (everywhere["labels"][everywhere["matched"] == 0] != -100).any()


def test_special_tokens_and_padding_are_never_masked(made, tokenizer):
    batch = next(made(mlm_probability=1.0, mlm_on_mismatched=True).epoch(0))
    masked = batch["labels"] != -100
    assert not masked[:, 0].any()
    assert not masked[batch["attention_mask"] == 0].any()
    assert (masked.sum(dim=1) == batch["attention_mask"].sum(dim=1) - 2).all()


def test_skipping_gives_the_rest_of_the_epoch(made):
    batches = made()
    whole = list(batches.epoch(1))
    assert len(whole) == batches.steps_per_epoch() == 6
    rest = list(made().epoch(1, skip=4))
    assert len(rest) == 2
    assert all(equal(one, other) for one, other in zip(whole[4:], rest, strict=True))


def by_key(batches):
    """What is shown for each pair: its tokens without padding, labels, image."""
    shown = {}
    for batch in batches:
        rows = rows_of(batch)
        for place, key in enumerate(batch["sample_keys"].tolist()):
            length = int(batch["attention_mask"][place].sum())
            ids, labels = batch["input_ids"][place, :length], batch["labels"][place, :length]
            image = rows[int(batch["image_index"][place])]
            shown[key] = (ids.tolist(), labels.tolist(), int(batch["matched"][place]), image)
    return shown


def test_what_is_drawn_for_a_pair_depends_on_neither_rank_nor_batch(made):
    alone = by_key(made().epoch(3))
    ranks = [batch for rank in range(3) for batch in made(images_per_batch=2).epoch(3, rank, 3)]
    assert by_key(ranks) == alone
    assert set(alone) == {3 * 2**32 + row * 4 + slot for row in range(IMAGES) for slot in range(4)}
    assert all(image == (key - 3 * 2**32) // 4 for key, (*_, image) in alone.items())


def test_other_epochs_and_seeds_show_something_else(made):
    first = next(made().epoch(0))
    assert not equal(first, next(made().epoch(1)))
    assert not equal(first, next(made(seed=4).epoch(0)))
    assert equal(first, next(made().epoch(0)))


def test_images_of_several_sizes_are_padded(made):
    for batch in made().epoch(0):
        for row, (height, width) in zip(rows_of(batch), batch["pixel_size"].tolist(), strict=True):
            assert (height, width) == (16, 16 if row % 5 else 24)
        assert batch["pixel_values"].shape[3] == batch["pixel_size"][:, 1].max()


def test_the_twin_that_sees_no_pixels_differs_in_pixels_only(made):
    seeing, blind = next(made().epoch(0)), next(made(text_only=True).epoch(0))
    assert not blind["pixel_values"].any()
    assert seeing["pixel_values"].any()
    blind["pixel_values"] = seeing["pixel_values"]
    assert equal(seeing, blind)


def test_long_captions_are_cut_and_counted(split, tokenizer):
    short = PretrainingBatches(split, tokenizer, PROCESSOR, replace(OPTIONS, max_text_length=6))
    # [CLS] this is row N and it is COLOUR [SEP] has 10 tokens, the other captions 4.
    assert short.truncated == IMAGES
    assert (
        PretrainingBatches(split, tokenizer, PROCESSOR, replace(OPTIONS, max_text_length=10)).truncated == 0
    )
    batch = next(short.epoch(0))
    assert batch["input_ids"].shape[1] <= 6
    ends = batch["attention_mask"].sum(dim=1) - 1
    assert (batch["input_ids"][torch.arange(16), ends] == tokenizer.sep_token_id).all()


def test_a_pair_without_a_false_caption_is_left_out(split, tokenizer):
    def say_nothing(row):
        row["captions"][0], row["facts"][0] = "a thing", json.dumps({"exist": [{}]})
        return row

    vague = split.map(say_nothing)
    batches = PretrainingBatches(vague, tokenizer, PROCESSOR, replace(OPTIONS, captions_per_image=6))
    sizes = [len(batch["input_ids"]) for batch in batches.epoch(0)]
    assert batches.dropped == IMAGES
    # Of 3 matched and 3 mismatched captions an image, 2 and 2 are left on average without the vague one.
    assert sum(sizes) >= 4 * IMAGES
    for batch in batches.epoch(0):
        assert len(batch["labels"]) == len(batch["matched"]) == len(batch["sample_keys"])
        assert (batch["attention_mask"].sum(dim=1) > 2).all()


def test_an_empty_split_and_a_tokenizer_without_mask_are_refused(split, tokenizer):
    with pytest.raises(UserError, match="empty"):
        PretrainingBatches(split.select([]), tokenizer, PROCESSOR, OPTIONS)

    class Maskless:
        mask_token_id = None

    with pytest.raises(UserError, match="no mask token"):
        PretrainingBatches(split, Maskless(), PROCESSOR, OPTIONS)
