"""Encoded images read from the files of a set: the same bytes whatever the set went through."""

import os
import threading

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets, load_from_disk

from pixelbert_fast.data import stored_bytes
from pixelbert_fast.data.stored_bytes import StoredBytes
from pixelbert_fast.errors import UserError

VALUES = [bytes([row % 251]) * (row * 37 % 500) for row in range(230)]


def saved(directory, values, batch=50):
    """The values as a set on disk, in record batches of `batch`."""
    rows = Dataset.from_dict({"image": values, "captions": [[str(row)] for row in range(len(values))]})
    rows.save_to_disk(directory, num_shards=2)
    return load_from_disk(directory)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("stored") / "set", VALUES)


def of_files(read):
    return [chunk.file is not None for chunk in read._chunks]


def test_every_value_is_read_from_its_file(split):
    read = StoredBytes(split)
    assert len(read) == 230
    assert [read[row] for row in range(230)] == VALUES
    assert read[np.int64(7)] == VALUES[7]
    assert all(of_files(read))
    for row in (-1, 230):
        with pytest.raises(IndexError):
            read[row]


@pytest.mark.parametrize(
    "change",
    [
        lambda split: split.select([200, 3, 3, 77]),
        lambda split: split.select(range(40, 190)),
        lambda split: split.shuffle(seed=1).select(range(60)),
        lambda split: concatenate_datasets([split, split.select(range(10, 20)), split.shuffle(seed=2)]),
        lambda split: Dataset.from_list(split.select(range(5)).to_list()),
        lambda split: Dataset.from_dict({"image": [b"one", None, b""]}),
    ],
)
def test_selected_joined_and_in_memory(split, change):
    rows = change(split)
    read = StoredBytes(rows)
    assert [read[row] for row in range(len(read))] == rows["image"][:]


def test_threads_read_side_by_side(split):
    read, wrong = StoredBytes(split), []

    def work(seed):
        for row in np.random.default_rng(seed).integers(230, size=400).tolist():
            if read[row] != VALUES[row]:
                wrong.append(row)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_files_are_closed_when_nobody_reads(split):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    if before is None:
        pytest.skip("there is no /proc to count open files in")
    read = StoredBytes(split)
    assert len(os.listdir("/proc/self/fd")) > before
    del read
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_proc_the_map_is_read(split, monkeypatch):
    monkeypatch.setattr(stored_bytes, "_MAPS", stored_bytes.Path("/nowhere/maps"))
    read = StoredBytes(split)
    assert not any(of_files(read))
    assert [read[row] for row in range(230)] == VALUES


def test_a_file_that_was_cut_is_told_in_a_sentence(tmp_path):
    split = saved(tmp_path / "set", VALUES)
    read = StoredBytes(split)
    for file in (tmp_path / "set").glob("*.arrow"):
        os.truncate(file, 100)
    with pytest.raises(UserError, match=r"cannot be read .the file has become shorter"):
        read[200]
