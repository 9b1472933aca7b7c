"""The batches of NLVR2: their contract, whose images are shared, what ranks and broken images do to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelbert_fast.batch import PairBatch
from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks import make_task
from pixelbert_fast.tasks.nlvr2.statements import UNKNOWN, Statements
from pixelbert_fast.training.accumulation import pairs_per_pass
from tests.toy_pairs import build, config, statements

UPRIGHT, LYING = (64, 32), (32, 64)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return build(tmp_path_factory.mktemp("toy") / "set")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def told(batch):
    """The statements of a batch by number."""
    return (batch["sample_keys"][:, 0] % 2**32 // 2).tolist()


def test_a_batch_keeps_its_contract(toy):
    task = make_task(config(toy))
    made = statements("train")
    for batch in task.batches(0, 0, 1):
        assert PairBatch.__required_keys__ <= batch.keys() <= PairBatch.__annotations__.keys()
        count, images = len(batch["labels"]), len(batch["rows"])
        assert 1 <= count <= 8
        assert batch["image_index"].shape == batch["sample_keys"].shape == (count, 2)
        assert batch["image_index"].dtype == torch.int32
        assert batch["pixel_values"].shape == (images, 3, 32, 32)
        # Each image once.
        assert len(set(batch["rows"].tolist())) == images <= 16
        for line, number in enumerate(told(batch)):
            own = made[number]
            assert batch["rows"][batch["image_index"][line].long()].tolist() == [own["left"], own["right"]]
            assert bool(batch["labels"][line]) == own["label"]
            ids = batch["input_ids"][line][batch["attention_mask"][line] == 1]
            assert task.tokenizer.decode(ids, skip_special_tokens=True) == own["statement"]
        assert task.size(batch) == {"images": images, "pairs": count}


def test_an_epoch_shows_every_statement_once_in_another_order_each(toy):
    task = make_task(config(toy))
    epochs = [[number for batch in task.batches(epoch, 0, 1) for number in told(batch)] for epoch in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(132))
    assert epochs[0] != epochs[1]
    assert task.steps_per_epoch(1) == 17


def test_an_image_passes_the_backbone_once_however_many_statements_read_it(toy):
    task = make_task(config(toy))
    batch = next(task.batches(0, 0, 1))
    assert len(batch["rows"]) < 2 * len(batch["labels"])
    shown = []
    task.model.pixelbert.backbone.conv1.register_forward_pre_hook(
        lambda module, inputs: shown.append(len(inputs[0]))
    )
    task.loss(task.model, batch)
    assert shown == [len(batch["rows"])]


def test_ranks_share_an_epoch_and_a_resumed_one_goes_on(toy):
    task = make_task(config(toy))
    alone = list(task.batches(2, 0, 1))
    both = [list(task.batches(2, rank, 2)) for rank in (0, 1)]
    assert len(both[0]) == len(both[1]) == task.steps_per_epoch(2) == 9
    paired = [batch for step in zip(*both, strict=True) for batch in step]
    assert all(same(a, b) for a, b in zip(alone, paired, strict=False))
    assert all(same(a, b) for a, b in zip(alone[5:], task.batches(2, 0, 1, skip=5), strict=True))
    # After four batches of one process, two go on with the rest.
    rest = [list(task.batches(2, rank, 2, start=4)) for rank in (0, 1)]
    assert all(same(a, b) for a, b in zip(alone[4::2], rest[0], strict=True))


def test_a_broken_image_takes_the_labels_of_what_reads_it(tmp_path):
    directory = build(tmp_path / "set", broken=(4,))
    task = make_task(config(directory, data={"broken_limit": 1.0}))
    hidden = 0
    for batch in task.batches(0, 0, 1):
        for number, label in zip(told(batch), batch["labels"].tolist(), strict=True):
            own = statements("train")[number]
            reads = 4 in (own["left"], own["right"])
            assert label == (UNKNOWN if reads else own["label"])
            hidden += reads
    assert hidden == 22
    assert task.broken == 1


def test_batches_of_few_sizes_hold_pairs_of_like_shape(tmp_path):
    directory = build(tmp_path / "set", sizes=[UPRIGHT, UPRIGHT, LYING])
    batching = {"buckets": 2, "aspect_change": 0.0, "alike": 2}
    task = make_task(config(directory, data={"batching": batching}))
    seen, shapes = [], set()
    for batch in task.batches(0, 0, 1):
        shapes.add(tuple(batch["pixel_values"].shape[2:]))
        seen += told(batch)
    assert sorted(seen) == list(range(132))
    # Two upright ones, two lying ones, one of each.
    assert shapes == {(64, 32), (32, 64), (64, 64)}
    bounded = {**batching, "pixels": 4 * 64 * 64}
    task = make_task(config(directory, data={"batching": bounded}))
    for batch in task.batches(0, 0, 1):
        images, _, height, width = batch["pixel_values"].shape
        assert images * height * width <= bounded["pixels"]
    bounded = {**batching, "tokens": 60}
    task = make_task(config(directory, data={"batching": bounded}))
    for batch in task.batches(0, 0, 1):
        assert 2 * batch["input_ids"].numel() <= bounded["tokens"]


def test_bounds_that_leave_no_room_for_two_images_are_told(tmp_path):
    directory = build(tmp_path / "set", sizes=[UPRIGHT, LYING])
    with pytest.raises(UserError, match="two images"):
        make_task(config(directory, training={"images_per_batch": 1}))
    with pytest.raises(UserError, match="two images"):
        make_task(config(directory, data={"batching": {"buckets": 2, "pixels": 64 * 64}}))
    with pytest.raises(UserError, match="tokens"):
        make_task(config(directory, data={"batching": {"buckets": 2, "tokens": 3}}))


def test_the_twin_without_pixels_has_the_same_batches_but_for_the_pixels(toy):
    seeing, blind = (make_task(config(toy, start={"text_only": only})) for only in (False, True))
    for one, other in zip(seeing.batches(0, 0, 1), blind.batches(0, 0, 1), strict=True):
        assert one["pixel_values"].any()
        assert not other.pop("pixel_values").any()
        one.pop("pixel_values")
        assert same(one, other)


def test_a_pass_counts_statements(toy):
    assert pairs_per_pass(config(toy), 4) == 4 * 8
    assert pairs_per_pass(config(toy, training={"images_per_batch": 7}), 4) == 4 * 3


def test_statements_without_names_get_some_in_the_official_form(tmp_path):
    directory = build(tmp_path / "set", identifiers=False)
    task = make_task(config(directory))
    found = Statements(open_set(directory).pairs("val"), task.tokenizer, 16).identifiers
    assert len(set(found)) == 132
    # Two texts, each shown with all pairs.
    assert len({name.rsplit("-", 2)[0] for name in found}) == 2
    assert np.unique([len(name.split("-")) for name in found]).tolist() == [4]
