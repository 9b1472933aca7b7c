"""Batches made ahead by a thread, and images decoded once."""

import gc
import io
import threading

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.data.decoders import plain
from pixelbert_fast.data.loader import prefetch
from pixelbert_fast.data.processor import PixelBertImageProcessor

PROCESSOR = PixelBertImageProcessor(short_side=32, long_side=64)


def png(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def split(*sizes):
    return Dataset.from_list(
        [{"image": png(h, w, seed), "height": h, "width": w} for seed, (h, w) in enumerate(sizes)]
    )


def test_items_come_in_order_and_the_thread_ends():
    ahead = prefetch(iter(range(50)), 3)
    assert list(ahead) == list(range(50))
    assert not ahead.thread.is_alive()
    with pytest.raises(StopIteration):
        next(ahead)


def test_it_stays_at_most_depth_ahead():
    made = []
    permits = threading.Semaphore(0)

    def source():
        for number in range(100):
            made.append(number)
            permits.release()
            yield number

    with prefetch(source(), 4) as ahead:
        # Four wait in the queue, a fifth in the thread's hand; a sixth would be one too many.
        for _ in range(5):
            assert permits.acquire(timeout=10)
        assert not permits.acquire(timeout=0.2)
        assert next(ahead) == 0
        assert permits.acquire(timeout=10)
        assert made == list(range(6))


def test_an_exception_comes_where_its_item_would_have():
    def source():
        yield 1
        raise ZeroDivisionError("the third image")

    ahead = prefetch(source(), 5)
    assert next(ahead) == 1
    with pytest.raises(ZeroDivisionError, match="the third image"):
        next(ahead)
    assert not ahead.thread.is_alive()
    # Nothing will ever come: it must not be waited for.
    with pytest.raises(StopIteration):
        next(ahead)


@pytest.mark.parametrize("leave", ["close", "with", "forget"])
def test_leaving_early_ends_the_thread_and_closes_the_source(leave):
    closed = threading.Event()

    def source():
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    # Kept, so that it is not the garbage collector that closes it.
    kept = source()
    ahead = prefetch(kept, 2)
    thread = ahead.thread
    assert next(ahead) == 0
    if leave == "close":
        ahead.close()
        ahead.close()
    elif leave == "with":
        with ahead:
            pass
    else:
        del ahead
        gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    assert closed.is_set()
    assert next(kept, "ended") == "ended"


def test_pixels_are_those_of_the_image_processor():
    images = split((32, 40), (64, 80), (32, 32))
    expected = PROCESSOR.pad([PROCESSOR.pixels(row["image"]) for row in images])
    values, sizes = DecodedImages(images, PROCESSOR).pixels(np.arange(3))
    assert sizes.tolist() == [[32, 40], [32, 40], [32, 32]]
    assert sizes.dtype == torch.int32
    # The same products in another order: a few units in the last place of values up to 2.7.
    torch.testing.assert_close(values, expected[0], rtol=0, atol=2e-6)
    assert (values[2, :, :, 32:] == 0).all()


def test_a_batch_of_one_size_equals_its_images_one_by_one():
    images = DecodedImages(split((32, 40), (32, 40), (32, 40)), PROCESSOR)
    values, _ = images.pixels([2, 0])
    assert values.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(values, torch.cat([images.pixels([2])[0], images.pixels([0])[0]]))


@pytest.mark.parametrize(("megabytes", "decodings"), [(1, 3), (0, 6), (2 * 32 * 40 * 3 / 2**20, 4)])
def test_what_fits_the_cache_is_decoded_once(monkeypatch, megabytes, decodings):
    calls = []
    decode = plain.decode_rgb
    monkeypatch.setattr(
        plain, "decode_rgb", lambda data, *memory: calls.append(data) or decode(data, *memory)
    )
    images = DecodedImages(split((32, 40), (32, 40), (32, 40)), PROCESSOR, cache_megabytes=megabytes)
    first, second = images.pixels([0, 1, 2]), images.pixels([0, 1, 2])
    assert len(calls) == decodings
    assert torch.equal(first[0], second[0])


def test_a_broken_image_becomes_a_plain_one_and_is_counted():
    rows = [*split((32, 40), (32, 40)), {"image": b"no image", "height": 48, "width": 32}]
    images = DecodedImages(Dataset.from_list(rows), PROCESSOR)
    values, sizes = images.pixels([0, 2])
    assert sizes.tolist() == [[32, 40], [48, 32]]
    assert (values[1] == 0).all()
    assert not (values[0] == 0).all()
    images.pixels([2])
    assert images.broken == 1


def test_blank_images_have_the_sizes_of_the_true_ones():
    images = DecodedImages(split((32, 40), (96, 48)), PROCESSOR)
    values, sizes = images.blank([0, 1])
    true_values, true_sizes = images.pixels([0, 1])
    assert values.shape == true_values.shape
    assert torch.equal(sizes, true_sizes)
    assert not values.any()
