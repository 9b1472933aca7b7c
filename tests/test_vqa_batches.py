"""Batches of questions: each once an epoch, beside its own image, whatever ranks, sizes and broken files."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks import make_task
from tests import vqa_sets

KNOWN = sum(answer.answer != "somebody" for row in range(24) for answer in vqa_sets.questions(row))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return vqa_sets.build(tmp_path_factory.mktemp("vqa") / "set")


def numbers(batch):
    """The numbers of a batch's questions: what its sample keys hold beside the epoch."""
    return (batch["sample_keys"] % 2**32).tolist()


def read(task, batch):
    """(image, question, {answer: score}) of each sequence of a batch."""
    found = []
    for sequence, image in enumerate(batch["image_index"].tolist()):
        ids = batch["input_ids"][sequence][batch["attention_mask"][sequence] == 1]
        text = task.tokenizer.decode(ids, skip_special_tokens=True).replace(" ?", "?")
        scores = {
            task.model.config.id2label[label]: round(float(score), 4)
            for label, score in enumerate(batch["labels"][sequence])
            if score
        }
        found.append((int(batch["rows"][image]), text, scores))
    return found


def asked():
    return [
        (row, one.text, {one.answer: 1.0})
        for row in range(vqa_sets.IMAGES)
        for one in vqa_sets.questions(row)
        if one.answer != "somebody"
    ]


@pytest.mark.parametrize("most", [1, 2, 4, 16])
def test_an_epoch_asks_every_question_once_beside_its_image(directory, most):
    task = make_task(vqa_sets.config(directory, data={"captions_per_image": most}))
    batches = list(task.batches(0, 0, 1))
    assert len(batches) == task.steps_per_epoch(1)
    seen = Counter(number for batch in batches for number in numbers(batch))
    assert len(seen) == KNOWN
    # Only what fills the last batch comes twice.
    assert sum(seen.values()) - KNOWN < len(batches[-1]["input_ids"])
    found = {str(one) for batch in batches for one in read(task, batch)}
    assert found == {str(one) for one in asked()}
    for batch in batches:
        counts = torch.bincount(batch["image_index"], minlength=len(batch["rows"]))
        assert counts.min() >= 1 and counts.max() <= most
        assert batch["labels"].dtype == torch.float32
        assert batch["pixel_values"].shape[0] == len(batch["rows"]) == 5
        assert task.size(batch) == {"images": 5, "pairs": len(batch["input_ids"])}
        assert task.flops(batch) > 0
    # Five questions of at most four are three and two, not four and one.
    if most == 4:
        shown = [tuple(np.bincount(batch["image_index"])) for batch in batches]
        assert {count for counts in shown for count in counts} == {2, 3}


def test_another_epoch_groups_the_questions_otherwise(directory):
    task = make_task(vqa_sets.config(directory, data={"captions_per_image": 2}))
    first, again, second = ([numbers(batch) for batch in task.batches(epoch, 0, 1)] for epoch in (0, 0, 1))
    assert first == again != second
    keys = next(task.batches(1, 0, 1))["sample_keys"]
    assert (keys // 2**32 == 1).all()


@pytest.mark.parametrize("batching", [None, {"buckets": 2, "alike": 2}])
def test_ranks_and_resumed_runs_share_one_list(directory, batching):
    task = make_task(vqa_sets.config(directory, data={"batching": batching, "captions_per_image": 2}))
    alone = [numbers(batch) for batch in task.batches(3, 0, 1)]
    two = [[numbers(batch) for batch in task.batches(3, rank, 2)] for rank in range(2)]
    together = [batch for step in zip(*two, strict=True) for batch in step]
    assert together[: len(alone) - 1] == alone[:-1]
    assert [numbers(batch) for batch in task.batches(3, 0, 1, skip=2)] == alone[2:]
    # Of another number of processes, that have shown two batches together.
    rest = [numbers(batch) for batch in task.batches(3, 0, 1, start=2)]
    assert rest == alone[2:]
    assert task.steps_per_epoch(1, 3, 2) == len(rest)


def test_soft_scores_are_those_of_ten_annotators(tmp_path):
    task = make_task(vqa_sets.config(vqa_sets.build(tmp_path / "set", annotators=10)))
    found = [one for batch in task.batches(0, 0, 1) for one in read(task, batch)]
    # Seven of ten agree, so leaving any one out leaves three and more.
    assert all(scores == {answer: 1.0} for *_, scores in found for answer in scores)
    assert {text for _, text, _ in found} == {one.text for one in vqa_sets.questions(0)} - {
        "what is the artist called?"
    }


def test_questions_without_a_known_answer_are_trained_on_where_asked_for(directory):
    task = make_task(vqa_sets.config(directory, vqa={"without_answer": True}))
    found = [one for batch in task.batches(0, 0, 1) for one in read(task, batch)]
    open_ones = [scores for _, text, scores in found if "artist" in text]
    assert open_ones and all(scores == {} for scores in open_ones)


def test_batches_of_one_size_stay_within_the_bound_on_pixels(tmp_path):
    directory = vqa_sets.build(tmp_path / "set", sizes=((32, 48), (48, 32), (32, 60)))
    data = {"batching": {"pixels": 4 * 32 * 48, "buckets": 3, "tokens": 200}, "captions_per_image": 3}
    task = make_task(vqa_sets.config(directory, data=data))
    batches = list(task.batches(0, 0, 1))
    assert len({batch["pixel_values"].shape[2:] for batch in batches}) > 1
    for batch in batches:
        images, _, height, width = batch["pixel_values"].shape
        assert images * height * width <= 4 * 32 * 48
        assert batch["input_ids"].numel() <= 200
    assert len({number for batch in batches for number in numbers(batch)}) == KNOWN
    assert task.steps_per_epoch(1) == len(batches)
    for bound, said in (({"pixels": 100}, "data.batching.pixels"), ({"tokens": 5}, "data.batching.tokens")):
        with pytest.raises(UserError, match=said):
            make_task(vqa_sets.config(directory, data={"batching": bound}))


@pytest.mark.parametrize("batching", [None, {"buckets": 2}])
def test_a_broken_image_is_replaced_with_what_is_asked_about_the_other(tmp_path, batching):
    directory = vqa_sets.build(tmp_path / "set", broken=(0, 3))
    task = make_task(vqa_sets.config(directory, data={"broken_limit": 1.0, "batching": batching}))
    true = asked()
    for batch in task.batches(0, 0, 1):
        assert not {0, 3} & set(batch["rows"].tolist())
        assert all(one in true for one in read(task, batch))
    assert task.broken == 2


def test_the_twin_without_pixels_is_shown_blank_images(directory):
    task = make_task(vqa_sets.config(directory, start={"text_only": True}))
    assert not next(task.batches(0, 0, 1))["pixel_values"].any()


def test_a_split_that_is_trained_on_is_evaluated_with_a_warning(directory, caplog):
    both = {"vqa": {"train_splits": ["train", "val"]}}
    task = make_task(vqa_sets.config(directory, **both, evaluation={"splits": []}))
    assert not caplog.records
    assert len({number for batch in task.batches(0, 0, 1) for number in numbers(batch)}) > KNOWN
    make_task(vqa_sets.config(directory, **both))
    assert ["'val' is trained on and evaluated" in one.getMessage() for one in caplog.records] == [True]
    with pytest.raises(ValueError, match="names 'val' twice"):
        vqa_sets.config(directory, vqa={"train_splits": ["val", "train", "val"]})


def test_a_checkpoint_is_trained_on_with_its_own_words(directory, tmp_path):
    first = make_task(vqa_sets.config(directory))
    first.save(first.model, tmp_path / "saved")
    words = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    first.tokenizer.save_pretrained(tmp_path / "same")
    start = {"checkpoint": str(tmp_path / "saved")}
    same = {"path": str(tmp_path / "same")}
    assert make_task(vqa_sets.config(directory, start=start, tokenizer=same)).tokenizer
    # As many words, of which two have changed places.
    held = words["model"]["vocab"]
    one, other = sorted(held, key=held.get)[-2:]
    held[one], held[other] = held[other], held[one]
    (tmp_path / "same" / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(UserError, match="numbers words otherwise"):
        make_task(vqa_sets.config(directory, start=start, tokenizer=same))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"data": {"sets": [{"directory": "x"}]}}, "a run of vqa has one set, data.directory"),
        ({"data": {"epoch": "captions"}}, "data.epoch is for the task pretrain"),
        ({"evaluation": {"splits": ["dev"]}}, "no split 'dev'"),
        ({"vqa": {"train_splits": ["test"]}}, "nothing to train"),
        ({"data": {"max_text_length": 100}}, "reads at most 64"),
        ({"start": {"checkpoint": "nowhere"}}, "no checkpoint at nowhere"),
    ],
)
def test_mistakes_are_told_before_training(directory, sections, said):
    with pytest.raises(UserError, match=said):
        make_task(vqa_sets.config(directory, **sections))
