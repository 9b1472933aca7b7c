"""Files and folders that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest
import torch

from pixelbert_fast.training import durable
from pixelbert_fast.training.durable import content_of, discard, replace_folder, save_tensors, settle


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
