"""The decoders: the image processor's pixels, one contract, and no image lost to another."""

import io
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelbert_fast.data.decoders import choice, dali, plain
from pixelbert_fast.data.decoders.buffers import Buffers
from pixelbert_fast.data.decoders.choice import choose, make_decoder
from pixelbert_fast.data.decoders.contract import DTYPES, TOLERANCE, decode_ahead
from pixelbert_fast.data.decoders.normalising import Normalisation
from pixelbert_fast.data.images import read_header, to_rgb
from pixelbert_fast.data.orientation import turned
from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.environment import DECODER
from pixelbert_fast.errors import UserError
from tests.mutated_images import KINDS, encoded, files, is_broken, mutated, picture, resized_header

ROOT = Path(__file__).resolve().parents[1]
PROCESSOR = PixelBertImageProcessor(32, 64)
NORMALISATION = Normalisation(PROCESSOR.image_mean, PROCESSOR.image_std)
LEVELS = 255 * torch.tensor(PROCESSOR.image_std).view(3, 1, 1)

needs_dali = pytest.mark.skipif(dali.why_not("cpu") is not None, reason="DALI is not installed")
DECODERS = [pytest.param("plain"), pytest.param("dali", marks=needs_dali)]


@pytest.fixture(autouse=True)
def _no_wish(monkeypatch):
    monkeypatch.delenv(DECODER.name, raising=False)


@pytest.fixture(scope="module")
def decoders():
    made = {}

    def get(name):
        if name not in made:
            made[name] = make_decoder(NORMALISATION, name, threads=2)
        return made[name]

    yield get
    for decoder in made.values():
        decoder.close()


def expected(content, size):
    """The image processor's pixels, at a size that it would not choose itself."""
    rgb = np.array(Image.fromarray(to_rgb(content)).resize(size[::-1], Image.Resampling.BILINEAR))
    exact = PixelBertImageProcessor(min(size), max(size))
    return exact.pixels(rgb)


def check_near(name, values, right):
    apart = ((values.float() - right) * LEVELS).abs()
    # A thousandth of a level for the rounding of a float32.
    assert apart.max() <= TOLERANCE[name].most + 1e-3
    assert apart.mean() <= TOLERANCE[name].mean


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not is_broken(mutated(kind, 3))])
def test_every_kind_of_file_is_the_processors(decoders, name, kind):
    contents = [mutated(kind, seed) for seed in (3, 23, 43)]
    contents = [content for content in contents if not is_broken(content)]
    sizes = [(32, 45), (64, 80), (20, 28)][: len(contents)]
    batch = decoders(name).decode(contents, sizes)
    assert not batch.broken
    assert batch.pixel_size.tolist() == [list(size) for size in sizes]
    assert batch.pixel_size.dtype == torch.int32
    for content, values, (height, width) in zip(contents, batch.pixel_values, sizes, strict=True):
        check_near(name, values[:, :height, :width], expected(content, (height, width)))
        assert not values[:, height:].any() and not values[:, :, width:].any()


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(
    ("source", "size"),
    [((480, 640), (384, 512)), ((480, 640), (800, 1066)), ((900, 500), (57, 32)), ((40, 3000), (9, 640))],
)
def test_sizes_up_and_down(decoders, name, source, size):
    content = encoded(Image.fromarray(picture(1, *source)), quality=90)
    batch = decoders(name).decode([content] * 2, [size] * 2)
    assert batch.pixel_values.shape == (2, 3, *size)
    assert batch.pixel_values.is_contiguous(memory_format=torch.channels_last)
    for values in batch.pixel_values:
        check_near(name, values, expected(content, size))


def test_the_same_size_is_the_processors_to_the_bit(decoders):
    content = mutated("jpeg", 5)
    batch = decoders("plain").decode([content], [(40, 56)])
    assert torch.equal(batch.pixel_values[0], PixelBertImageProcessor(40, 80).pixels(content))


def test_pillow_alone_decodes_the_same(decoders, monkeypatch):
    contents = [content for _, content in files(len(KINDS))]
    sizes = [(32, 45)] * len(contents)
    with_it = decoders("plain").decode(contents, sizes)
    monkeypatch.setattr(plain, "simplejpeg", None)
    without = decoders("plain").decode(contents, sizes)
    assert torch.equal(with_it.pixel_values, without.pixel_values)
    assert with_it.broken == without.broken


@pytest.mark.skipif(plain.simplejpeg is None, reason="simplejpeg is not installed")
def test_simplejpeg_takes_whole_jpegs_and_no_others(monkeypatch):
    taken = []
    decode = plain.simplejpeg.decode_jpeg
    monkeypatch.setattr(
        plain.simplejpeg,
        "decode_jpeg",
        lambda content, *options, **named: taken.append(content) or decode(content, *options, **named),
    )
    for kind in ("jpeg", "grey jpeg", "progressive jpeg", "turned jpeg", "turned by xmp"):
        assert np.array_equal(plain.decode_rgb(mutated(kind, 5)), to_rgb(mutated(kind, 5))), kind
    assert len(taken) == 5
    for kind in ("cmyk jpeg", "palette png", "huge jpeg"):
        if not is_broken(mutated(kind, 5)):
            assert np.array_equal(plain.decode_rgb(mutated(kind, 5)), to_rgb(mutated(kind, 5))), kind
    assert len(taken) == 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_headers_say_what_is_stored_and_how_it_is_turned(orientation):
    content = mutated("turned jpeg", orientation - 1)
    header = read_header(content)
    assert (header.height, header.width, header.orientation) == (40, 56, orientation)
    stored = np.array(Image.open(io.BytesIO(content)))
    assert np.array_equal(turned(stored, header.orientation), to_rgb(content))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(decoders, name, dtype):
    contents, sizes = [mutated(kind, 3) for kind in ("jpeg", "html", "palette png")], [(32, 45)] * 3
    full = decoders(name).decode(contents, sizes)
    batch = decoders(name).decode(contents, sizes, dtype)
    assert batch.pixel_values.dtype == dtype
    assert batch.pixel_values.is_contiguous(memory_format=torch.channels_last)
    assert [place for place, _ in batch.broken] == [1]
    if dtype == torch.uint8:
        back = torch.zeros_like(full.pixel_values)
        for place in (0, 2):
            picture = batch.pixel_values[place].permute(1, 2, 0).contiguous()
            NORMALISATION.into(back[place].permute(1, 2, 0), picture)
        # DALI subtracts before it multiplies: some units in the last place of values up to 2.7.
        torch.testing.assert_close(back, full.pixel_values, rtol=0, atol=0 if name == "plain" else 2e-6)
    else:
        assert torch.equal(batch.pixel_values, full.pixel_values.to(dtype))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_of_mutated_files_exactly_the_broken_are_lost(decoders, name, count):
    contents = [content for _, content in files(count)]
    broken = {place for place, content in enumerate(contents) if is_broken(content)}
    assert count / 4 < len(broken) < count / 2, "both kinds are there"
    found = set()
    for start in range(0, count, 20):
        part = contents[start : start + 20]
        batch = decoders(name).decode(part, [(32, 45)] * len(part))
        for place, reason in batch.broken:
            assert reason
            assert not batch.pixel_values[place].any()
            found.add(start + place)
        for place, content in enumerate(part):
            if start + place not in found:
                check_near(name, batch.pixel_values[place], expected(content, (32, 45)))
    assert found == broken


@pytest.mark.parametrize("name", DECODERS)
def test_a_declared_huge_image_costs_no_memory(name):
    """Its pixels would be 2.7 GB, and one decoded all the same would be gigabytes above 64 MiB."""
    code = f"""
import resource
from tests.mutated_images import mutated
from pixelbert_fast.data.decoders.choice import make_decoder
from pixelbert_fast.data.decoders.normalising import Normalisation
decoder = make_decoder(Normalisation((0.5,) * 3, (0.2,) * 3), {name!r}, threads=2)
whole = mutated("jpeg", 0)
decoder.decode([whole] * 4, [(32, 45)] * 4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
batch = decoder.decode([mutated("huge jpeg", 1), mutated("huge png", 1), whole, whole], [(32, 45)] * 4)
assert [place for place, _ in batch.broken] == [0, 1], batch.broken
assert all("30000 x 30000" in reason or "pixels that are decoded" in reason for _, reason in batch.broken)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 64 * 1024


def test_a_second_header_in_a_file_is_not_believed():
    """The size that was checked is the size that is decoded."""
    jpeg = mutated("jpeg", 1)
    twice = resized_header(jpeg, 20, 28)
    try:
        assert plain.decode_rgb(twice).shape == to_rgb(twice).shape
    except UserError:
        assert is_broken(twice)


def test_requests_that_do_not_fit_are_refused(decoders):
    decoder = decoders("plain")
    with pytest.raises(ValueError, match="one size for each of 1 images, got 2"):
        decoder.decode([b""], [(1, 1), (1, 1)])
    with pytest.raises(ValueError, match="at least 1, got"):
        decoder.decode([b""], [(0, 5)])
    with pytest.raises(ValueError, match="dtype must be one of"):
        decoder.decode([b""], [(1, 1)], torch.float64)
    assert decoder.decode([], []).pixel_values.shape == (0, 3, 0, 0)


def test_batches_are_decoded_ahead_in_another_thread(decoders):
    threads = set()

    class Watched:
        name = "plain"

        def decode(self, *request):
            threads.add(threading.current_thread().name)
            return decoders("plain").decode(*request)

    requests = [([mutated("jpeg", seed)], [(32, 45)]) for seed in range(5)]
    with decode_ahead(Watched(), requests) as batches:
        for (contents, sizes), batch in zip(requests, batches, strict=True):
            right = decoders("plain").decode(contents, sizes).pixel_values
            assert torch.equal(batch.pixel_values, right)
    assert threads == {"prefetch"}


def test_the_choice(monkeypatch):
    assert choose() == "plain" == choose("plain") == choose("auto")
    monkeypatch.setattr(dali, "_why_not_installed", lambda: None)
    assert (choose(None, "cpu"), choose(None, "cuda"), choose("plain", "cuda")) == ("plain", "dali", "plain")
    monkeypatch.setenv(DECODER.name, "dali")
    assert (choose(None, "cpu"), choose("plain", "cpu")) == ("dali", "plain")
    monkeypatch.setattr(dali, "_why_not_installed", lambda: "DALI is away.")
    with pytest.raises(UserError, match="'dali' cannot run: DALI is away"):
        choose()
    monkeypatch.setenv(DECODER.name, "auto")
    assert choose(None, "cuda") == "plain"
    assert "not to mps" in choice.why_not("dali", "mps")
    with pytest.raises(UserError, match="did you mean 'dali'"):
        choose("dalli")


def test_memory_is_used_again_when_nothing_refers_to_it_and_not_before():
    buffers = Buffers(most=2)
    first = buffers.empty((2, 3, 4), torch.float32)
    place, view = first.data_ptr(), first.permute(2, 0, 1)[1:]
    first.fill_(1)
    del first
    second = buffers.empty((2, 3, 4), torch.float32)
    assert second.data_ptr() != place, "a view still shows it"
    second.fill_(2)
    assert (view == 1).all()
    third = buffers.empty((2, 3, 4), torch.float32)  # more than are kept at once
    assert third.data_ptr() not in (place, second.data_ptr())
    del view
    smaller = buffers.empty((5, 3), torch.bfloat16)
    assert smaller.data_ptr() == place
    del second
    larger = buffers.empty((20, 3, 4), torch.float32)
    kept = larger.data_ptr()
    del larger
    assert buffers.empty((20, 3, 4), torch.uint8).data_ptr() == kept
    assert buffers.empty((0, 3), torch.float16).shape == (0, 3)


def test_a_batch_keeps_its_pixels_while_others_are_decoded(decoders):
    decoder = decoders("plain")
    requests = [([mutated("jpeg", seed)] * 2, [(32, 45)] * 2) for seed in range(9)]
    batches = [decoder.decode(*request) for request in requests]
    for request, batch in zip(requests, batches, strict=True):
        assert torch.equal(batch.pixel_values, decoder.decode(*request).pixel_values)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_memory_that_is_used_again_shows_nothing_of_what_was_there(dtype):
    decoder = make_decoder(NORMALISATION, "plain", threads=2)
    whole = mutated("jpeg", 1)
    first = decoder.decode([whole] * 4, [(40, 45)] * 4, dtype).pixel_values.fill_(7)
    place = first.data_ptr()
    del first
    sizes = [(40, 30), (40, 45), (20, 45), (31, 33)]
    values = decoder.decode([whole, b"", whole, whole], sizes, dtype).pixel_values
    assert values.data_ptr() == place
    for image, (height, width) in zip(values, [(40, 30), (0, 0), (20, 45), (31, 33)], strict=True):
        assert not image[:, height:].any() and not image[:, :, width:].any()
    decoder.close()
