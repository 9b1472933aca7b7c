"""Two runs in one folder: the second is refused, and a killed one keeps nobody out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.folder import RunFolder
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.recipes import load_config
from pixelbert_fast.training.run import run

HOLDING = """
import sys, time
from pixelbert_fast.training.folder import RunFolder
RunFolder(sys.argv[1]).hold()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """A process that holds OUTPUT, as a training does."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_before_it_touches_anything(holder, tmp_path: Path) -> None:
    output = tmp_path / "run"
    config = load_config("demo", [f"output={output}", f"data.directory={tmp_path / 'data'}"])
    with pytest.raises(UserError, match=r"another process is training in .*run; wait for it, or choose"):
        run(config, Ranks(), "plain", resume="never")
    assert list(output.iterdir()) == [] and not (tmp_path / "data").exists()


def test_a_killed_run_keeps_nobody_out(holder, tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    folder = RunFolder(tmp_path / "run")
    deadline = time.monotonic() + 10
    while True:
        try:
            folder.hold()
            break
        except UserError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    folder.release()


def test_a_folder_that_was_released_can_be_held_again(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    first.hold()
    with pytest.raises(UserError):
        second.hold()
    first.release()
    second.hold()
    second.release()


def test_a_forked_child_keeps_nobody_out_of_what_was_released(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    first.hold()
    child = subprocess.Popen(["sleep", "60"], pass_fds=[first._held])  # has the folder open, as a fork has
    try:
        first.release()
        second.hold()
        second.release()
    finally:
        child.kill()
        child.wait()


def test_what_cannot_be_a_folder_is_left_to_the_claim(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    folder = RunFolder(tmp_path / "file")
    folder.hold()
    with pytest.raises(UserError, match="is a file"):
        folder.claim({}, "auto")
    assert (tmp_path / "file").read_text() == "mine"
