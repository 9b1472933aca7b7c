"""Recorded sizes that are not the pictures': told, counted, and harmless beside the proportions."""

import logging

import pytest
from datasets import Dataset

from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.data.processor import PixelBertImageProcessor
from tests.mutated_images import HEIGHT, WHOLE_KINDS, WIDTH, mutated

PROCESSOR = PixelBertImageProcessor(32, 64)
LOGGER = "pixelbert_fast.data.recorded"


def split_of(contents, sizes):
    rows = [
        {"key": f"file{row}", "image": content, "height": height, "width": width}
        for row, (content, (height, width)) in enumerate(zip(contents, sizes, strict=True))
    ]
    return Dataset.from_list(rows)


def test_right_sizes_of_every_kind_are_not_complained_of(caplog):
    contents = [mutated(kind, seed) for kind in WHOLE_KINDS for seed in range(8)]
    images = DecodedImages(split_of(contents, [to_rgb(one).shape[:2] for one in contents]), PROCESSOR)
    with caplog.at_level(logging.WARNING, LOGGER):
        images.pixels(range(len(contents)))
    assert images.misrecorded == 0
    assert not caplog.records


@pytest.mark.parametrize("megabytes", [0, 1])
@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_wrong_sizes_are_counted_and_told_now_and_then(caplog, kind, megabytes):
    sizes = [(HEIGHT, WIDTH), *[(HEIGHT, 2 * WIDTH)] * 12, (7, 3000)]
    split = split_of([mutated(kind, seed) for seed in range(14)], sizes)
    images = DecodedImages(split, PROCESSOR, megabytes)
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(3):
            values, given = images.pixels(range(14))
    assert images.misrecorded == 13
    assert given.tolist() == [[32, 44], *[[22, 64]] * 12, [1, 64]]
    assert values[1:, :, :1, :64].any(dim=1).all()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0] == (
        "image 'file1' (row 1) is recorded as 40 x 112 pixels and is 40 x 56 (1 recorded wrongly so far): "
        "its proportions are changed; build the set again"
    )
    assert "(10 recorded wrongly so far)" in told[1]


def test_a_jpeg_recorded_as_it_is_stored_and_not_as_it_is_seen(caplog):
    turned = mutated("turned jpeg", 5)
    images = DecodedImages(split_of([turned, b"no image"], [(HEIGHT, WIDTH)] * 2), PROCESSOR)
    with caplog.at_level(logging.WARNING, LOGGER):
        images.pixels([0, 1])
    assert to_rgb(turned).shape[:2] == (WIDTH, HEIGHT)
    assert images.misrecorded == 1
    told = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert [text.split(" (")[0] for text in told] == ["image 'file0'"]
