"""Pre-training on several sets, by captions, and in batches of one size within bounds."""

import io
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from pixelbert_fast import PixelBertForPreTraining
from pixelbert_fast.data.batch_list import Batching
from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.vocabulary import train_wordpiece
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.pretraining.batches import PretrainingBatches, PretrainingOptions
from pixelbert_fast.tasks.pretraining.material import Part
from tests import small_models

PROCESSOR = PixelBertImageProcessor(short_side=64, long_side=128, size_divisor=16)
# Nothing masked, so that texts can be read back.
OPTIONS = PretrainingOptions(
    images_per_batch=4, captions_per_image=4, max_text_length=16, mlm_probability=0.0, seed=5
)
SHAPES = [(64, 64), (48, 64), (64, 48), (20, 100), (30, 41)]
BATCHING = Batching(buckets=4, alike=2)


def record(name, row, captions, shape=None):
    """An image all of one grey level, twice its row, whose captions name its set and row."""
    height, width = SHAPES[row % len(SHAPES)] if shape is None else shape
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 2 * row, dtype=np.uint8)).save(stream, "PNG")
    texts = [f"{name} {row} says {number}" for number in range(captions)]
    return {"image": stream.getvalue(), "height": height, "width": width, "captions": texts}


@pytest.fixture(scope="module")
def few():
    return Dataset.from_list([record("few", row, 5) for row in range(13)])


@pytest.fixture(scope="module")
def many():
    """Images with 1 to 9 captions."""
    return Dataset.from_list([record("many", row, 1 + row % 9) for row in range(20)])


@pytest.fixture(scope="module")
def tokenizer(few, many):
    texts = [text for split in (few, many) for own in split["captions"] for text in own]
    return train_wordpiece([*texts, "true false"], 500)


@pytest.fixture(scope="module")
def made(few, many, tokenizer):
    def make(weights=(1.0, 1.0), **changes):
        parts = [Part(few, weights[0], "few"), Part(many, weights[1], "many")]
        return PretrainingBatches(parts, tokenizer, PROCESSOR, replace(OPTIONS, **changes))

    return make


def pairs_of(batches, tokenizer):
    """Every pair of these batches: (set and row of the caption, text, whether it matches, row, key)."""
    found = []
    for batch in batches:
        level = batch["pixel_values"][:, 0, 0, 0] * PROCESSOR.image_std[0] + PROCESSOR.image_mean[0]
        rows = (level * 255 / 2).round().int()
        texts = tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
        images = batch["image_index"].long()
        found += [
            (text.split()[:2], text, bool(matched), int(rows[image]), key)
            for text, matched, image, key in zip(
                texts, batch["matched"].tolist(), images.tolist(), batch["sample_keys"].tolist(), strict=True
            )
        ]
    return found


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_sets_come_by_weight_and_false_captions_from_the_same_set(made, tokenizer):
    seen = Counter()
    for epoch in range(4):
        pairs = pairs_of(made(weights=(2.0, 0.5)).epoch(epoch), tokenizer)
        assert len({key for *_, key in pairs}) <= len(pairs)
        true = Counter(text for _, text, matched, *_ in pairs if matched)
        false = Counter(text for _, text, matched, *_ in pairs if not matched)
        # The last step shows images of the first one again, which not every text is part of.
        assert set(true) >= set(false) or set(false) >= set(true)
        by_key = {key: (name, text, matched, row) for name, text, matched, row, key in pairs}
        shown = {(key % 2**32) // 4: (row, matched) for key, (_, _, matched, row) in by_key.items()}
        for key, ((name, own), _, matched, row) in by_key.items():
            assert (int(own) == row) == matched
            number = (key % 2**32) // 4
            # The first set's showings come first, and captions never cross.
            assert name == ("few" if number < 26 else "many")
            seen[name, row] += matched and key % 4 == 0
        assert len(shown) == 26 + 10
    assert all(seen["few", row] == 8 for row in range(13))
    assert all(seen["many", row] == 2 for row in range(20))


def test_verified_where_the_truth_is_known_in_one_set_only(few, tokenizer):
    def told(row):
        fact = {"exist": [{"colour": "red" if row % 2 else "blue"}]}
        scene = {"objects": [{"attributes": {"colour": "red" if row % 2 else "blue"}, "box": [0, 0, 9, 9]}]}
        made = record("true" if row % 2 else "false", row, 2)
        return {**made, "facts": [json.dumps(fact)] * 2, "scene": json.dumps({**scene, "ground": {}})}

    known = Dataset.from_list([told(row) for row in range(12)])
    parts = [Part(few, 1.0, "few"), Part(known, 1.0, "known")]
    batches = PretrainingBatches(parts, tokenizer, PROCESSOR, replace(OPTIONS, captions_per_image=2))
    false = 0
    for epoch in range(3):
        for (name, _), _, matched, row, _ in pairs_of(batches.epoch(epoch), tokenizer):
            if name in ("true", "false"):
                assert (name == ("true" if row % 2 else "false")) == matched
                false += not matched
    assert false > 30


def test_an_epoch_of_captions_shows_each_once(made, few, many, tokenizer):
    batches = made(epoch="captions", images_per_batch=1, batching=BATCHING)
    for epoch in range(2):
        pairs = pairs_of(batches.epoch(epoch), tokenizer)
        every = [text for split in (few, many) for own in split["captions"][:] for text in own]
        assert sorted(text for _, text, matched, *_ in pairs if matched) == sorted(every)
        assert Counter(text for _, text, matched, *_ in pairs if not matched) == Counter(every)
        assert len({key for *_, key in pairs}) == len(pairs)


def test_epochs_of_images_use_captions_up_first(made, many, tokenizer):
    batches = made(weights=(0.0, 1.0), epoch="images", images_per_batch=5)
    told = {row: [] for row in range(20)}
    for epoch in range(9):
        for (name, _), text, matched, row, _ in pairs_of(batches.epoch(epoch), tokenizer):
            assert name == "many"
            if matched:
                told[row].append(text)
    for row, own in enumerate(many["captions"][:]):
        # One with 1 caption shows that one each time, though there is room for two.
        assert len(told[row]) == 9 * min(2, len(own))
        for start in range(0, len(told[row]) - len(own) + 1, len(own)):
            assert sorted(told[row][start : start + len(own)]) == sorted(own)


def test_every_batch_is_of_one_size_within_the_bounds(made, tokenizer):
    bounds = replace(BATCHING, pixels=3 * 64 * 96, tokens=2 * 4 * 8)
    batches = made(batching=bounds, images_per_batch=4)
    plan, shapes, images = batches.sizes, set(), 0
    assert len(plan.buckets) <= 4
    sizes = Counter()
    for batch in batches.epoch(0):
        shape = batch["pixel_values"].shape
        shapes.add(tuple(shape[2:]))
        images += len(shape) and shape[0]
        sizes[shape[0]] += 1
        assert shape[0] * shape[2] * shape[3] <= bounds.pixels
        # Four texts an image, of which some may be left out: the bound is on what would be.
        assert shape[0] * 4 * batch["input_ids"].shape[1] <= bounds.tokens
        if "pixel_size" in batch:
            assert (batch["pixel_size"] != torch.tensor(shape[2:])).any()
            assert (batch["pixel_size"] <= torch.tensor(shape[2:])).all()
    assert images == 33
    assert max(sizes) <= 2
    assert shapes <= set(map(tuple, plan.buckets.tolist()))
    assert len(shapes) > 1


def test_padding_within_a_bucket_does_not_change_what_the_model_says(tokenizer):
    """Images padded in a bucket give what each alone gives, of its own size."""
    shapes = [(48, 64)] * 8 + [(20, 100)] * 4 + [(28, 100)] * 4
    split = Dataset.from_list([record("few", row, 2, shape) for row, shape in enumerate(shapes)])
    options = replace(OPTIONS, captions_per_image=2, batching=Batching())
    big = PixelBertImageProcessor(short_side=128, long_side=256, size_divisor=32)
    batches = PretrainingBatches(split, tokenizer, big, replace(options, images_per_batch=5))
    model = PixelBertForPreTraining(small_models.config(vocab_size=len(tokenizer)), fast=False).eval()
    padded = 0
    for batch in batches.epoch(0):
        together = model(**{name: batch[name] for name in batch if name != "rows"}, seed=0).itm_logits
        for place in range(len(batch["pixel_values"])):
            size = batch.get("pixel_size", torch.tensor([batch["pixel_values"].shape[2:]] * 9))[place]
            padded += size.tolist() != list(batch["pixel_values"].shape[2:])
            rows = batch["image_index"] == place
            alone = {name: value[rows] for name, value in batch.items() if len(value) == len(rows)}
            alone["image_index"] = torch.zeros_like(alone["image_index"])
            pixels = batch["pixel_values"][place : place + 1, :, : size[0], : size[1]]
            said = model(**{**alone, "pixel_values": pixels}, seed=0).itm_logits
            # Sums of other lengths over other blocks: float32 rounding.
            torch.testing.assert_close(said, together[rows], rtol=1e-3, atol=1e-4)
    assert padded == 8


@pytest.mark.parametrize("changes", [{}, {"batching": BATCHING}, {"batching": replace(BATCHING, tokens=64)}])
def test_a_resumed_epoch_sees_the_rest_at_any_number_of_ranks(made, changes):
    whole = list(made(**changes).epoch(2))
    for before, steps, after in ((1, 3, 2), (3, 1, 2), (2, 2, 7), (7, 1, 1), (1, len(whole) - 1, 3)):
        batches = made(**changes)
        start = before * steps
        rest = [list(batches.epoch(2, rank, after, start=start)) for rank in range(after)]
        assert {len(one) for one in rest} == {batches.steps_per_epoch(after, 2, start)}
        seen = [batch for step in zip(*rest, strict=True) for batch in step]
        left = whole[start:]
        if changes:
            assert all(equal(one, other) for one, other in zip(seen, left, strict=False))
        assert len(left) <= len(seen) < len(left) + after
        skipped = list(batches.epoch(2, 0, after, skip=1, start=start))
        assert len(skipped) == len(rest[0]) - 1
        assert all(equal(one, other) for one, other in zip(skipped, rest[0][1:], strict=True))
        keys = {key for batch in whole[:start] + seen for key in batch["sample_keys"].tolist()}
        assert keys == {key for batch in whole for key in batch["sample_keys"].tolist()}


def test_another_image_of_the_group_stands_in_for_a_broken_one(few, many, tokenizer):
    def cut(record, row):
        return {**record, "image": b"no image"} if row in (2, 9) else record

    parts = [Part(few.map(cut, with_indices=True), 1.0, "few"), Part(many, 0.5, "many")]
    bounds = replace(BATCHING, tokens=2 * 4 * 8)
    options = replace(OPTIONS, batching=bounds, broken_limit=0.5, images_per_batch=2)
    batches = PretrainingBatches(parts, tokenizer, PROCESSOR, options)
    whole = PretrainingBatches([Part(few), *parts[1:]], tokenizer, PROCESSOR, options)
    for epoch in range(3):
        seen, asked = list(batches.epoch(epoch)), list(whole.epoch(epoch))
        for batch, planned in zip(seen, asked, strict=True):
            assert batch["pixel_values"].shape == planned["pixel_values"].shape
            assert batch["input_ids"].numel() <= bounds.tokens
        for (name, own), _, matched, row, _ in pairs_of(seen, tokenizer):
            assert (int(own) == row) == matched
            assert not (name == "few" and matched and row in (2, 9))
    assert batches.broken == 2


def test_ranks_of_a_step_have_batches_of_one_size(made):
    batches = made(weights=(4.0, 4.0), batching=replace(BATCHING, alike=4), images_per_batch=2)
    steps = list(zip(*(batches.epoch(0, rank, 4) for rank in range(4)), strict=True))
    alike = [len({tuple(batch["pixel_values"].shape[2:]) for batch in step}) == 1 for step in steps]
    # Of each group fewer than 4 batches are over, 8 groups at most.
    assert sum(alike) >= len(steps) - 7
    assert len(steps) > 12


def test_the_fewest_images_and_captions(tokenizer):
    def of(captions, **changes):
        split = Dataset.from_list(
            [record("few", row, 1) | {"captions": own} for row, own in enumerate(captions)]
        )
        changes = {"epoch": "images", "batching": BATCHING, "images_per_batch": 8} | changes
        return PretrainingBatches(split, tokenizer, PROCESSOR, replace(OPTIONS, **changes))

    alone = of([["few 0 says 0"]], mismatched_share=0.0)
    assert [batch["matched"].tolist() for rank in range(7) for batch in alone.epoch(0, rank, 7)] == [[1]] * 7
    with pytest.raises(UserError, match="at least 2 images"):
        next(of([["few 0 says 0"]]).epoch(0))
    # Both have one caption, and it is the same: no false one, and so nothing to ask.
    with pytest.raises(UserError, match="nothing to show"):
        next(of([["few"], ["few"]]).epoch(0))
    # The one image whose captions are true of all others is not shown, and no batch is without a pair.
    batches = list(of([["few"], ["few", "many"], ["few", "says"]], images_per_batch=1).epoch(0))
    assert batches and all(len(batch["input_ids"]) for batch in batches)
    empty = next(of([["", "few"], ["many", "says"]], mlm_probability=1.0).epoch(0))
    assert empty["attention_mask"].sum(dim=1).min() == 2


def test_what_cannot_be_mixed_is_refused(few, many, tokenizer):
    def of(*parts):
        return PretrainingBatches(list(parts), tokenizer, PROCESSOR, OPTIONS)

    for parts in ([], [Part(few, 0.0)], [Part(few.select([]))]):
        with pytest.raises(UserError, match="empty"):
            of(*parts)
    with pytest.raises(UserError, match="coco has the weight -1"):
        of(Part(few, -1.0, "coco"))
    bare = Dataset.from_list([record("few", 0, 1) | {"captions": own} for own in (["few"], [])])
    with pytest.raises(UserError, match="flickr: image 1 of the split has no caption"):
        of(Part(many), Part(bare, 1.0, "flickr"))
    # An empty set beside one that is not shows nothing.
    assert of(Part(few), Part(many.select([]))).steps_per_epoch() == 4
