"""Files and folders that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import resource

import pytest
import torch

from pixelbert_fast.training import durable
from pixelbert_fast.training.durable import content_of, discard, replace_folder, save_tensors, settle
from pixelbert_fast.training.record_file import RecordFile, cut_records


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("exchanging", [True, False])
def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, exchanging):
    if not exchanging:
        monkeypatch.setattr(durable, "_exchange", lambda one, other: False)
    folder = tmp_path / "best"
    for text in ("one", "two"):
        replace_folder(folder, lambda into, text=text: (into / "file").write_text(text))
        assert (folder / "file").read_text() == text
    (folder / "more").touch()

    def half(into):
        (into / "file").write_text("three")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        replace_folder(folder, half)
    assert (folder / "file").read_text() == "two"
    replace_folder(folder, lambda into: (into / "file").write_text("four"))
    assert names(tmp_path) == ["best"]
    assert names(folder) == ["file"]


def test_stopped_between_two_renames_the_old_folder_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "_exchange", lambda one, other: False)
    folder = tmp_path / "best"
    replace_folder(folder, lambda into: (into / "file").write_text("one"))
    os.replace(folder, tmp_path / "best.removed")
    settle(folder)
    assert (folder / "file").read_text() == "one"
    replace_folder(folder, lambda into: (into / "file").write_text("two"))
    discard(folder)
    assert names(tmp_path) == []


def test_the_content_is_that_of_the_file(tmp_path):
    found = save_tensors({"a": torch.arange(1000)}, tmp_path / "a.pt")
    assert found == content_of(tmp_path / "a.pt")
    assert found.sha256 == hashlib.sha256((tmp_path / "a.pt").read_bytes()).hexdigest()
    assert torch.equal(torch.load(tmp_path / "a.pt", weights_only=True)["a"], torch.arange(1000))


def test_records_that_cannot_be_written_are_told_once_and_the_next_are_whole(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    records = RecordFile(path)
    records.write({"step": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, before[1]))
    try:
        for step in (2, 3):  # of the first, five bytes can be written
            records.write({"step": step})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for step in (4, 5):
        records.write({"step": step})
    records.close()
    assert capsys.readouterr().err.count(f"warning: records of {path} are lost: ") == 1
    cut_records(path, 4)
    assert path.read_text() == '{"step": 1}\n{"step": 4}\n'


def test_records_are_cut_whole_or_not_at_all(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            cut_records(path, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    cut_records(tmp_path / "nothing", 1)
