"""Batches of random mixtures: bounds, whole epochs, and runs resumed again and again, by other ranks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pixelbert_fast.data.batch_list import Batching
from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.vocabulary import train_wordpiece
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.pretraining.batches import PretrainingBatches, PretrainingOptions
from pixelbert_fast.tasks.pretraining.material import Part

PROCESSOR = PixelBertImageProcessor(short_side=32, long_side=80, size_divisor=8, least_side=9)
SHAPES = [(64, 64), (48, 64), (64, 48), (20, 100), (2, 900), (700, 3)]
WORDS = ("a", "cat", "dog", "sees", "red", "green", "birds", "there")
# No pixels are read: what a batch holds beside them is what is drawn and planned.
OPTIONS = PretrainingOptions(text_only=True, mlm_probability=0.5, seed=3)

captions = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join), min_size=1, max_size=4
)
images = st.tuples(st.sampled_from(SHAPES), captions)
parts = st.lists(
    st.tuples(st.lists(images, min_size=1, max_size=9), st.sampled_from([0.0, 0.3, 1.0, 1.0, 2.5])),
    min_size=1,
    max_size=3,
)
batchings = st.one_of(
    st.none(),
    st.builds(
        Batching,
        buckets=st.integers(1, 5),
        pixels=st.sampled_from([None, 6400, 9000, 30_000]),
        tokens=st.sampled_from([None, 40, 60, 200]),
        alike=st.integers(1, 5),
    ),
)
options = st.builds(
    dict,
    images_per_batch=st.integers(1, 7),
    captions_per_image=st.integers(1, 6),
    mismatched_share=st.sampled_from([0.0, 0.5]),
    max_text_length=st.sampled_from([3, 8, 16]),
    epoch=st.sampled_from(["images", "captions"]),
    batching=batchings,
)
sittings = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), max_size=5)


@pytest.fixture(scope="module")
def tokenizer():
    return train_wordpiece([" ".join(WORDS)], 100)


def made(tokenizer, mixture, changes):
    """The batches, or None where the mixture or the bounds are refused."""
    given = []
    for number, (rows, weight) in enumerate(mixture):
        columns = [
            {"image": b"", "height": height, "width": width, "captions": texts}
            for (height, width), texts in rows
        ]
        given.append(Part(Dataset.from_list(columns), weight, f"set {number}"))
    try:
        batches = PretrainingBatches(given, tokenizer, PROCESSOR, replace(OPTIONS, **changes))
        for epoch in range(3):
            batches.steps_per_epoch(epoch=epoch)
    except UserError:
        return None
    return batches


def key_of(batch):
    return tuple(batch["sample_keys"].tolist())


@given(mixture=parts, changes=options, epoch=st.integers(0, 2), cut=sittings, world=st.integers(1, 9))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mixture_in_any_sittings(tokenizer, mixture, changes, epoch, cut, world):
    batches = made(tokenizer, mixture, changes)
    assume(batches is not None)
    whole = list(batches.epoch(epoch))
    check_bounds(whole, batches.options)
    check_whole(whole, batches.options)
    listed, start, seen = [key_of(batch) for batch in whole], 0, []
    for ranks, wanted in [*cut, (world, None)]:
        steps = batches.steps_per_epoch(ranks, epoch, start)
        shown = [list(batches.epoch(epoch, rank, ranks, start=start)) for rank in range(ranks)]
        assert {len(own) for own in shown} == {steps}
        # The last step ends the epoch: a run is never stopped within it.
        done = steps if wanted is None else min(wanted, max(steps - 1, 0))
        seen += [key_of(shown[rank][step]) for step in range(done) for rank in range(ranks)]
        for rank in range(ranks):
            rest = list(batches.epoch(epoch, rank, ranks, skip=done, start=start))
            assert [key_of(one) for one in rest] == [key_of(one) for one in shown[rank][done:]]
        start += done * ranks
    assert seen[: len(listed)] == listed
    over = seen[len(listed) :]
    assert len(over) < world
    if batches.options.batching:
        assert set(over) <= set(listed)


def check_bounds(whole, options):
    batching = options.batching
    for batch in whole:
        count, _, height, width = batch["pixel_values"].shape
        sequences, tokens = batch["input_ids"].shape
        assert count <= options.images_per_batch
        assert 0 < sequences <= count * options.captions_per_image
        assert tokens <= options.max_text_length
        assert batch["image_index"].max() < count
        sizes = batch.get("pixel_size", torch.tensor([[height, width]]))
        assert (sizes >= 9).all()
        assert (sizes <= torch.tensor([height, width])).all()
        if batching is not None:
            assert batching.pixels is None or count * height * width <= batching.pixels
            assert batching.tokens is None or sequences * tokens <= batching.tokens


def check_whole(whole, options):
    """With listed batches no pair comes twice; without, the last batch may begin again."""
    keys = [key for batch in whole for key in batch["sample_keys"].tolist()]
    if options.batching:
        assert len(set(keys)) == len(keys)
    else:
        first = [key for batch in whole[:-1] for key in batch["sample_keys"].tolist()]
        assert len(set(first)) == len(first)


@given(mixture=parts, changes=options)
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_epoch_is_the_same_whenever_it_is_asked_for(tokenizer, mixture, changes):
    batches = made(tokenizer, mixture, changes)
    assume(batches is not None)
    first = [list(batches.epoch(epoch)) for epoch in (0, 1)]
    other = made(tokenizer, mixture, changes)
    again = {epoch: list(other.epoch(epoch)) for epoch in (1, 0)}
    for epoch, expected in enumerate(first):
        assert len(expected) == len(again[epoch])
        for one, two in zip(expected, again[epoch], strict=True):
            assert one.keys() == two.keys()
            assert all(np.array_equal(one[name], two[name]) for name in one)
