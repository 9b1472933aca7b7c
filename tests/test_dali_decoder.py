"""DALI's decoder: whose memory its batches are in, and what happens where it does not start."""

from contextlib import contextmanager

import pytest
import torch

from pixelbert_fast.data.decoders import dali
from pixelbert_fast.data.decoders.choice import make_decoder
from pixelbert_fast.data.decoders.normalising import Normalisation
from pixelbert_fast.data.processor import PixelBertImageProcessor
from tests.mutated_images import mutated

pytestmark = pytest.mark.skipif(dali.why_not("cpu") is not None, reason="DALI is not installed")

PROCESSOR = PixelBertImageProcessor(32, 64)
NORMALISATION = Normalisation(PROCESSOR.image_mean, PROCESSOR.image_std)


@pytest.fixture
def decoder():
    made = make_decoder(NORMALISATION, "dali", threads=2)
    yield made
    made.close()


def test_it_keeps_what_it_has_given(decoder):
    first = decoder.decode([mutated("jpeg", 1)] * 3, [(32, 45)] * 3).pixel_values
    kept = first.clone()
    for seed in range(2, 8):
        decoder.decode([mutated("jpeg", seed)] * 3, [(32, 45)] * 3)
    assert torch.equal(first, kept)


def test_where_it_does_not_start_the_plain_decoder_takes_its_place(decoder, monkeypatch, caplog):
    starts = []

    def start(capacity, dtype):
        starts.append(capacity)
        raise RuntimeError("the driver is too old")

    monkeypatch.setattr(decoder, "_pipeline", start)
    request = [mutated("jpeg", 1), b"", mutated("jpeg", 2)], [(32, 45)] * 3
    right = make_decoder(NORMALISATION, "plain", threads=2).decode(*request).pixel_values
    for _ in range(2):
        batch = decoder.decode(*request)
        assert torch.equal(batch.pixel_values, right)
        assert [place for place, _ in batch.broken] == [1]
    assert len(starts) == 1
    assert caplog.text.count("the driver is too old") == 1


def test_what_a_gpu_decodes_is_copied_and_handed_over(decoder, monkeypatch):
    """On the CPU, with torch's streams replaced by a record of what is asked of them."""
    events = []

    class Stream:
        def synchronize(self):
            events.append("synchronised")

    @contextmanager
    def beside(stream):
        events.append("begun")
        yield
        events.append("left")

    decoder._stream = Stream()
    monkeypatch.setattr(torch.cuda, "stream", beside)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: "the reader's")
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda values, stream: events.append(stream))
    given = []
    from_dlpack = torch.from_dlpack
    monkeypatch.setattr(torch, "from_dlpack", lambda one: given.append(from_dlpack(one)) or given[-1])
    request = [mutated("jpeg", 1), mutated("palette png", 1)], [(32, 45)] * 2
    values = decoder.decode(*request).pixel_values
    assert events == ["begun", "left", "synchronised", "the reader's"]
    assert values.data_ptr() != given[0].data_ptr(), "DALI's own memory"
    decoder._stream = None
    assert torch.equal(values, decoder.decode(*request).pixel_values)
