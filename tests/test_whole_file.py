"""A file is whole or not there, and what is no file is never replaced by one."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from pixelbert_fast.tasks.whole_file import written_whole


def test_a_file_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("before")

    def interrupted() -> None:
        with written_whole(file) as out:
            out.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]
    with written_whole(file) as out:
        out.write("after")
    assert file.read_text() == "after" and list(tmp_path.iterdir()) == [file]


def test_a_pipe_or_device_is_written_into_and_stays(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    with written_whole(pipe) as out:
        out.write("page")
    reader.join(10)
    assert read == ["page"] and stat.S_ISFIFO(pipe.stat().st_mode) and list(tmp_path.iterdir()) == [pipe]


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(Path("elsewhere") / "page.html")
    for text in ("new", "newer"):
        with written_whole(tmp_path / "link") as out:
            out.write(text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "elsewhere" / "page.html").read_text() == text
