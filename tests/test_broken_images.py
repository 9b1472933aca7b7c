"""Broken images in training: replaced alike however a run is cut up, counted, told once, and limited."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict

from pixelbert_fast.data.broken import BrokenImages
from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.records import write_card
from pixelbert_fast.data.vocabulary import train_wordpiece
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.pretraining.batches import PretrainingBatches, PretrainingOptions
from pixelbert_fast.training.cli import main
from tests.mutated_images import files, is_broken, mutated

PROCESSOR = PixelBertImageProcessor(32, 64)
LOGGER = "pixelbert_fast.data.broken"
WORDS = ("one", "two", "three", "four", "five", "six", "seven")


def record(row, content):
    """As a builder wrote it before the file was damaged, which may have changed the size that it declares."""
    turned = not is_broken(content) and to_rgb(content).shape[:2] == (56, 40)
    shape = (56, 40) if turned else (40, 56)
    return {
        "key": f"file{row}",
        "image": content,
        "height": shape[0],
        "width": shape[1],
        "captions": [f"number {row}", f"{WORDS[row % 7]} and {WORDS[row // 7 % 7]}"],
    }


def split_of(contents):
    return Dataset.from_list([record(row, content) for row, content in enumerate(contents)])


@pytest.fixture(scope="module")
def mixed():
    """Thirty images of one size, rows 4, 11 and 29 broken, and two of another, row 30 broken."""
    contents = [mutated("jpeg", seed) for seed in range(32)]
    for row in (4, 11, 29):
        contents[row] = mutated("truncated", row)
    contents[30] = b"no image"
    rows = [record(row, content) for row, content in enumerate(contents)]
    for row in (30, 31):
        rows[row] |= {"height": 56, "width": 40}
    return Dataset.from_list(rows)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("megabytes", [0, 0.02, 1])
def test_another_image_of_the_size_stands_in(mixed, megabytes):
    images = DecodedImages(mixed, PROCESSOR, megabytes)
    rows, values, sizes = images.readable([3, 4, 11, 12], seed=1, epoch=0)
    assert rows[[0, 3]].tolist() == [3, 12]
    assert not set(rows.tolist()) & {4, 11, 29, 30, 31}
    assert torch.equal(values, images.pixels(rows)[0])
    assert sizes.tolist() == [[32, 44]] * 4
    assert values.is_contiguous(memory_format=torch.channels_last)


def test_the_cache_changes_no_value(mixed):
    batches = [[0, 1, 4, 2], [2, 31, 0, 1], [30, 4, 5, 6], [0, 5, 6, 31]]
    results = []
    for megabytes in (0, 0.012, 0.02, 1):
        images = DecodedImages(mixed, PROCESSOR, megabytes)
        results.append([images.readable(rows, seed=1, epoch=2) for rows in batches * 2])
    for others in results[1:]:
        for first, other in zip(results[0], others, strict=True):
            assert all(np.array_equal(mine, its) for mine, its in zip(first, other, strict=True))


def test_what_stands_in_depends_on_seed_epoch_and_row_alone(mixed):
    def chosen(rows, seed=1, epoch=0):
        return DecodedImages(mixed, PROCESSOR).readable(rows, seed, epoch).rows.tolist()

    alone = {row: chosen([row])[0] for row in (4, 11, 29)}
    assert chosen([29, 0, 11, 4]) == [alone[29], 0, alone[11], alone[4]]
    images = DecodedImages(mixed, PROCESSOR)
    images.readable([11, 29], 1, 3)
    assert images.readable([4, 11], 1, 0).rows.tolist() == [alone[4], alone[11]]
    assert len({chosen([4], epoch=epoch)[0] for epoch in range(8)}) > 1
    assert len({chosen([4], seed=seed)[0] for seed in range(8)}) > 1


def test_where_no_other_has_the_size_any_will_do(mixed):
    lonely = mixed.select([30, 0, 1])
    rows, values, sizes = DecodedImages(lonely, PROCESSOR).readable([0, 1], seed=0, epoch=0)
    assert set(rows.tolist()) <= {1, 2}
    assert sizes.tolist() == [[32, 44]] * 2
    assert torch.equal(values[1, :, :32, :44], DecodedImages(lonely, PROCESSOR).pixels([1])[0][0])
    with pytest.raises(UserError, match="none of the 2 images of the split can be decoded"):
        DecodedImages(mixed.select([4, 30]), PROCESSOR).readable([0], seed=0, epoch=0)


def test_each_is_told_once_by_its_key(mixed, caplog):
    images = DecodedImages(mixed, PROCESSOR)
    with caplog.at_level(logging.WARNING, LOGGER):
        for epoch in range(3):
            for start in range(0, 32, 8):
                images.readable(range(start, start + 8), 0, epoch)
    told = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert sorted(text.split("'")[1] for text in told) == ["file11", "file29", "file30", "file4"]
    assert all("cannot be decoded: " in text for text in told)
    assert images.broken == 4


def test_the_limit_is_a_share_of_the_epochs_images():
    broken = BrokenImages(limit=0.02)
    for _ in range(3):  # the same ones in every epoch are not more
        broken.begin_epoch(100)
        for row in (7, 8, 7):
            broken.add(row, "is gone")
            broken.met(row)
    broken.add(9, "is gone too")
    with pytest.raises(UserError) as caught:
        broken.met(9)
    assert str(caught.value) == (
        "3 of the 100 images of an epoch cannot be decoded, more than the share of 0.02 that"
        " data.broken_limit allows; the last was in row 9 (is gone too): mend the set, or raise the limit"
    )


@pytest.mark.parametrize(("limit", "allowed"), [(0.0, 0), (0.01, 1), (0.03, 1), (0.1, 2), (1.0, 20)])
def test_a_single_broken_image_ends_no_run_unless_none_may_be(limit, allowed):
    broken = BrokenImages(limit=limit)
    broken.begin_epoch(20)
    for row in range(20):
        broken.add(row, "")
        if row < allowed:
            broken.met(row)
        else:
            with pytest.raises(UserError):
                broken.met(row)


@pytest.fixture(scope="module")
def made(mixed):
    tokenizer = train_wordpiece([text for own in mixed["captions"] for text in own], 200)
    options = PretrainingOptions(
        images_per_batch=4, captions_per_image=2, max_text_length=8, broken_limit=1.0
    )
    return lambda **changes: PretrainingBatches(mixed, tokenizer, PROCESSOR, replace(options, **changes))


def test_batches_show_the_captions_of_the_image_that_is_seen(made, mixed):
    batches = made(mlm_probability=0.0)
    captions = batches._material.captions
    for batch in batches.epoch(1):
        for image in range(4):
            values, _ = DecodedImages(mixed, PROCESSOR).pixels(range(32))
            height, width = batch["pixel_size"][image].tolist()
            mine = batch["pixel_values"][image, :, :height, :width]
            (row,) = [
                row for row in range(32) if torch.equal(values[row, :, :height, :width], mine) and mine.any()
            ]
            own = [captions.ids(row, number).tolist() for number in range(2)]
            pairs = (batch["image_index"] == image) & (batch["matched"] == 1)
            for ids, mask in zip(batch["input_ids"][pairs], batch["attention_mask"][pairs], strict=True):
                assert ids[mask.bool()].tolist() in own
    assert batches.broken == 4


def test_a_resumed_epoch_sees_the_same(made):
    whole = list(made().epoch(2))
    for skip in (1, 5):
        rest = list(made(cache_megabytes=0).epoch(2, skip=skip))
        assert all(equal(first, second) for first, second in zip(whole[skip:], rest, strict=True))


def test_too_many_broken_images_stop_the_epoch(made):
    with pytest.raises(UserError, match=r"data\.broken_limit"):
        list(made(broken_limit=0.05).epoch(0))


def test_a_run_over_mutated_files_goes_through(tmp_path, capsys):
    count = 60
    contents = [content for _, content in files(count)]
    whole = split_of([mutated("jpeg", seed) for seed in range(8)])
    DatasetDict({"train": split_of(contents), "val": whole}).save_to_disk(tmp_path / "set")
    write_card(tmp_path / "set", {"name": "mutated", "counts": {"train": count, "val": 8}})
    recipe = tmp_path / "mutated.yaml"
    recipe.write_text(
        f"""
data:
  {{directory: {tmp_path / "set"}, short_side: 32, long_side: 64, captions_per_image: 2, broken_limit: 0.5}}
model: {{overrides: {{backbone_channels: 8, hidden_size: 32, num_hidden_layers: 1, intermediate_size: 32}}}}
training: {{images_per_batch: 10, epochs: 1, log_every: 1}}
evaluation: {{splits: [val], images: null}}
"""
    )
    output = tmp_path / "run"
    assert main(["--config", str(recipe), f"output={output}"]) == 0, capsys.readouterr().err
    broken = sum(map(is_broken, contents))
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["steps"] == count // 10
    assert metrics["broken_images"] == broken
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    counted = [line["broken_images"] for line in lines if "broken_images" in line]
    assert len(counted) == count // 10
    assert counted == sorted(counted) and counted[-1] == broken

    assert main(["--config", str(recipe), f"output={tmp_path / 'strict'}", "data.broken_limit=0.1"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"of the {count} images of an epoch cannot be decoded" in error
