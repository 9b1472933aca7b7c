"""Builds stopped, killed or out of disk: what they leave, and that they end with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.errors import UserError
from tests.toy_sets import Stop, Toy, files, stop_after

REPOSITORY = Path(__file__).parent.parent


def test_a_stopped_build_repeats_no_finished_block_and_ends_with_the_same_bytes(tmp_path):
    build_set(Toy(broken=(5,)), tmp_path / "whole", workers=1, block=3)
    with pytest.raises(Stop):
        build_set(Toy(broken=(5,)), tmp_path / "cut", workers=1, block=3, progress=stop_after(2))
    assert not (tmp_path / "cut").exists()
    # What a kill in the last step leaves is no set and does no harm.
    (tmp_path / "cut.partial" / "set").mkdir()
    (tmp_path / "cut.partial" / "set" / "card.json").write_text("{}")
    again, seen = Toy(broken=(5,)), []
    # The block size of the first try holds: another one would cut the rest elsewhere.
    build_set(again, tmp_path / "cut", workers=1, block=4, progress=lambda *now: seen.append(now))
    assert seen[0] == (6, 14)
    assert again.rendered[0] == ("train", 6)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_an_unfinished_build_of_another_set_is_not_mixed_in(tmp_path):
    with pytest.raises(Stop):
        build_set(Toy(), tmp_path / "set", workers=1, block=3, progress=stop_after(2))
    with pytest.raises(UserError, match=r"set\.partial holds an unfinished build of another data set"):
        build_set(Toy(train=11), tmp_path / "set", workers=1)


def test_images_put_right_after_all_were_dropped_are_looked_at_again(tmp_path):
    broken = Toy(broken=(0, 1, 2, 3))
    with pytest.raises(UserError, match="all 4 images of split 'test' were dropped"):
        build_set(broken, tmp_path / "set", workers=1, block=3)
    mended = Toy(broken=(0, 1, 2, 3))
    mended.render = Toy().render
    report = build_set(mended, tmp_path / "set", workers=1, block=3)
    # Of the split that had some left nothing is repeated.
    assert report.counts == {"train": 6, "val": 0, "test": 4}


@pytest.mark.parametrize("lost", ["arrow", "json", "cut"])
def test_a_block_that_lost_its_content_with_the_power_is_made_again(tmp_path, lost):
    build_set(Toy(broken=(5,)), tmp_path / "whole", workers=1, block=3)
    with pytest.raises(Stop):
        build_set(Toy(broken=(5,)), tmp_path / "cut", workers=1, block=3, progress=stop_after(3))
    block = tmp_path / "cut.partial" / f"train-{3:09d}.arrow"
    assert block.stat().st_size
    content = block.read_bytes()
    block = block.with_suffix(".json") if lost == "json" else block
    block.write_bytes(content[:100] if lost == "cut" else b"")
    again = Toy(broken=(5,))
    build_set(again, tmp_path / "cut", workers=1, block=3)
    assert ("train", 3) in again.rendered and ("train", 0) not in again.rendered
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_blocks_of_an_unknown_set_are_not_mixed_in(tmp_path):
    build_set(Toy(train=11), tmp_path / "whole", workers=1, block=3)
    with pytest.raises(Stop):
        build_set(Toy(broken=(1,)), tmp_path / "set", workers=1, block=3, progress=stop_after(2))
    (tmp_path / "set.partial" / "identity.json").write_bytes(b"")
    build_set(Toy(train=11), tmp_path / "set", workers=1, block=3)
    assert files(tmp_path / "set") == files(tmp_path / "whole")


def test_what_a_kill_at_the_very_end_leaves_is_cleared_away(tmp_path, monkeypatch):
    rename = os.rename

    def killed(source, target):
        rename(source, target)
        if Path(target) == tmp_path / "set":
            raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", killed)
        with pytest.raises(Stop):
            build_set(Toy(), tmp_path / "set", workers=1)
    assert (tmp_path / "set.partial").exists()
    report = build_set(Toy(), tmp_path / "set", workers=1)
    assert report.counts["train"] == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def _in_another_process(code: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True, cwd=REPOSITORY
    )


_BUILD = """
import time
from pixelbert_fast.data.build import build_set, make_builder

def progress(advance, total):
    if advance:
        print(advance, flush=True)
        time.sleep(60)

if __name__ == "__main__":
    builder = make_builder("scenes-objects", images=60, size=32)
    build_set(builder, {out!r}, workers={workers}, block=4, progress=progress)
"""


def test_resumes_after_a_kill_and_leaves_no_worker(tmp_path):
    out = tmp_path / "killed"
    build = _in_another_process(_BUILD.format(out=str(out), workers=2))
    try:
        assert build.stdout.readline().strip() == "4"
        children = _children(build.pid)
        builder = make_builder("scenes-objects", images=60, size=32)
        with pytest.raises(UserError, match="another process is building"):
            build_set(builder, out, workers=1)
    finally:
        build.send_signal(signal.SIGKILL)
        build.wait()
        build.stdout.close()
    assert not out.exists()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)

    seen = []
    build_set(builder, out, workers=1, progress=lambda *now: seen.append(now))
    assert seen[0][0] >= 4
    build_set(builder, tmp_path / "whole", workers=1)
    assert files(out) == files(tmp_path / "whole")


def _children(pid: int) -> list[int]:
    """The processes that `pid` started; none where the system has no /proc to tell."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = status.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == pid:
            found.append(int(status.parent.name))
    return found


_FULL = """
import resource, signal
from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.errors import RunError

if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for most in {limits}:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        builder = make_builder("scenes-objects", images=60, size=32)
        try:
            build_set(builder, {out!r}, workers={workers}, block=20)
        except RunError as error:
            assert "File too large" in str(error), error
        else:
            raise SystemExit("nothing was too large")
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_is_full_at_any_point_is_told_and_the_build_goes_on(tmp_path, workers):
    """By a limit on the size of files, which fails as a full disk does."""

    def make():
        return make_builder("scenes-objects", images=60, size=32)

    build_set(make(), tmp_path / "whole", workers=1, block=20)
    largest = max(path.stat().st_size for path in (tmp_path / "whole").rglob("*.arrow"))
    limits = [0, 500, largest // 6, largest // 2, largest - 1]
    code = _FULL.format(limits=limits, out=str(tmp_path / "set"), workers=workers)
    build = _in_another_process(code)
    assert build.wait(timeout=120) == 0
    build_set(make(), tmp_path / "set", workers=1, block=20)
    assert files(tmp_path / "set") == files(tmp_path / "whole")
