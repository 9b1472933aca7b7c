"""What a frozen backbone gives, kept on disk: the same numbers, in the room that was told before."""

from __future__ import annotations

import errno
import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pixelbert_fast import PixelBertForImageTextRetrieval
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.retrieval import room
from pixelbert_fast.tasks.retrieval.cache import Layout, VisualCache
from pixelbert_fast.tasks.retrieval.identity import weights_signature
from tests.small_models import config, stir

SIZES = np.array([[48, 64], [33, 40], [48, 64], [64, 48]])
# An image padded in a batch or alone: sums of float32 in other orders.
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def model():
    torch.manual_seed(0)
    return stir(PixelBertForImageTextRetrieval(config())).eval()


def picture(row):
    height, width = SIZES[row]
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(row))


def read(rows):
    height, width = SIZES[rows].max(axis=0)
    values = torch.zeros(len(rows), 3, height, width)
    for place, row in enumerate(rows):
        values[place, :, : SIZES[row][0], : SIZES[row][1]] = picture(row)
    return values, torch.from_numpy(SIZES[rows]).int()


@torch.no_grad()
def padded(rows):
    """What the model gives; its batches leave room for an image as high as one and as wide as another."""
    found = model().pixelbert.embed_pixels(*read(list(rows)))
    longest = int(found.mask.sum(1).max())
    return found._replace(
        values=found.values[:, :longest],
        positions=found.positions[:, :longest],
        mask=found.mask[:, :longest],
    )


def test_embeddings_are_those_of_the_model(tmp_path):
    net = model()
    cache = VisualCache(tmp_path, Layout.of("embeddings", net, SIZES), "s")
    cache.fill(net, read, images_per_pass=2)
    assert cache.complete
    for rows in ([0, 1, 2, 3], [1], [3, 1]):
        found, expected = cache.embeddings(rows), padded(rows)
        torch.testing.assert_close(found.values, expected.values, **CLOSE)
        assert torch.equal(found.positions, expected.positions) and torch.equal(found.mask, expected.mask)
        assert torch.equal(found.valid_grid, expected.valid_grid) and found.grid == expected.grid
    torch.testing.assert_close(cache.values([0, 2]), padded([0, 2]).values, **CLOSE)
    assert cache.counts.tolist() == padded([0, 1, 2, 3]).mask.sum(1).tolist()


def test_maps_give_the_same_embeddings_and_gradients_to_the_projection(tmp_path):
    net = model()
    cache = VisualCache(tmp_path, Layout.of("c5", net, SIZES), "s")
    cache.fill(net, read, images_per_pass=2)
    features, grids = cache.features([0, 1, 3])
    found = net.pixelbert.embed_features(features, grids)
    expected = padded([0, 1, 3])
    longest = expected.values.shape[1]
    assert not found.mask[:, longest:].any()
    torch.testing.assert_close(found.values[:, :longest], expected.values, **CLOSE)
    assert torch.equal(found.positions[:, :longest], expected.positions)
    found.values.sum().backward()
    assert net.pixelbert.pixel_projection.weight.grad.abs().sum() > 0
    assert net.pixelbert.pixel_type_embedding.grad.abs().sum() > 0


def test_a_stopped_build_goes_on_and_shares_make_a_whole(tmp_path):
    net, seen = model(), []

    def watched(rows):
        seen.extend(rows)
        if len(seen) > 2:
            raise KeyboardInterrupt
        return read(rows)

    layout = Layout.of("embeddings", net, SIZES)
    cache = VisualCache(tmp_path, layout, "s")
    with pytest.raises(KeyboardInterrupt):
        cache.fill(net, watched, images_per_pass=1)
    again = VisualCache(tmp_path, layout, "s")
    assert not again.complete
    rest = []
    for rank in range(2):
        again.fill(
            net, lambda rows: rest.extend(rows) or read(rows), images_per_pass=1, rank=0, world=2 - rank
        )
    assert again.complete and sorted(rest + seen[:2]) == [0, 1, 2, 3]
    torch.testing.assert_close(again.embeddings([0, 1, 2, 3]).values, padded([0, 1, 2, 3]).values, **CLOSE)


def test_passes_are_bounded_in_images_and_pixels(tmp_path):
    net, passes = model(), []
    layout = Layout.of("embeddings", net, SIZES[[0] * 5])

    def watched(rows):
        passes.append(len(rows))
        return torch.randn(len(rows), 3, 48, 64), torch.tensor([[48, 64]] * len(rows))

    for number, (images, pixels) in enumerate(((4, None), (4, 2 * 48 * 64), (4, 7))):
        VisualCache(tmp_path / str(number), layout, "s").fill(
            net, watched, images_per_pass=images, pixels=pixels
        )
    assert passes == [4, 1, 2, 2, 1, 1, 1, 1, 1, 1]


def test_its_size_is_told_and_refused_before_an_image_is_read(tmp_path, monkeypatch, caplog):
    layout = Layout.of("embeddings", model(), SIZES)
    assert layout.bytes == 4 * 32 * int(layout.counts.sum())
    monkeypatch.setattr(room, "LEFT_FREE", 0)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=layout.bytes - 1))
    with caplog.at_level(logging.INFO), pytest.raises(UserError, match="would take"):
        VisualCache(tmp_path, layout, "s")
    assert "takes" in caplog.text and not (tmp_path / "values.bin").exists()
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=layout.bytes))
    VisualCache(tmp_path, layout, "s")
    assert (tmp_path / "values.bin").stat().st_size == layout.bytes


def test_other_weights_are_refused(tmp_path):
    net = model()
    layout = Layout.of("embeddings", net, SIZES)
    VisualCache(tmp_path, layout, weights_signature(net))
    VisualCache(tmp_path, layout, weights_signature(net))
    with torch.no_grad():
        net.pixelbert.pixel_type_embedding[0] += 1
    with pytest.raises(UserError, match="other weights"):
        VisualCache(tmp_path, layout, weights_signature(net))


def test_a_process_that_comes_late_computes_its_own_share(tmp_path):
    """Which images are missing changes while others work; the shares must not."""
    net = model()
    layout = Layout.of("embeddings", net, SIZES)
    for rank in range(2):
        late = VisualCache(tmp_path, layout, "s")
        assert not late.complete
        if rank == 1:
            with pytest.raises(UserError, match="2 of 4 images are missing"):
                late.check_complete()
        late.fill(net, read, images_per_pass=1, rank=rank, world=2)
    late.check_complete()
    torch.testing.assert_close(late.embeddings([0, 1, 2, 3]).values, padded([0, 1, 2, 3]).values, **CLOSE)


def test_marks_without_a_card_are_not_believed(tmp_path):
    net = model()
    layout = Layout.of("embeddings", net, SIZES)
    VisualCache(tmp_path, layout, "s").fill(net, read)
    (tmp_path / "card.json").write_text("")  # what a power cut can leave of it
    with pytest.raises(UserError, match="other weights or images"):
        VisualCache(tmp_path, layout, "s")


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_a_disk_that_is_full_in_spite_of_the_figures_is_told(tmp_path, monkeypatch, when):
    """A quota is in no figure of the disk; some filesystems reserve nothing."""
    net = model()
    layout = Layout.of("embeddings", net, SIZES)

    def full(*_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    if when == "at the start":
        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(UserError, match=r"quota.*retrieval\.cache_directory"):
            VisualCache(tmp_path, layout, "s")
        return
    cache, real = VisualCache(tmp_path, layout, "s", or_else="make room"), os.pwrite
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match=r"quota.*make room"):
        cache.fill(net, read)
    assert not cache.complete
    monkeypatch.setattr(os, "pwrite", lambda handle, view, at: real(handle, view[:100], at))  # as it may
    cache.fill(net, read)
    torch.testing.assert_close(cache.embeddings([0, 1, 2, 3]).values, padded([0, 1, 2, 3]).values, **CLOSE)


def test_images_that_cannot_be_decoded_are_marked_for_good(tmp_path):
    net = model()
    layout = Layout.of("embeddings", net, SIZES)
    VisualCache(tmp_path, layout, "s").fill(net, read, broken=lambda row: row == 2)
    again = VisualCache(tmp_path, layout, "s")
    assert again.complete and again.broken.tolist() == [2]
