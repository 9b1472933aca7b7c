"""States on a disk that fills, lies or is read-only: the one before survives and is used."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

from pixelbert_fast.errors import RunError
from pixelbert_fast.training import checkpoint, durable
from pixelbert_fast.training.checkpoint import StateFolder, first_misfit
from pixelbert_fast.training.ranks import Ranks

ALONE = Ranks()


def weights(number):
    return {"model": {"weight": torch.full((64,), float(number))}, "optimizer": {}}


def written(folder, *steps, **options):
    states = StateFolder(folder, ALONE, **options)
    for step in steps:
        states.write(step, {"position": {"step": step}}, weights(step), {"own": torch.ones(3)})
    return states


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_reads(folder, step):
    found = StateFolder(folder, ALONE).read()
    assert found.record["step"] == step
    assert torch.equal(found.shared["model"]["weight"], weights(step)["model"]["weight"])
    assert torch.equal(found.mine["own"]["own"], torch.ones(3))


def test_a_state_says_what_is_in_it_and_what_made_it(tmp_path):
    written(tmp_path, 3, made_by={"revision": "abc"})
    state = tmp_path / "step-00000003"
    record = json.loads((state / "state.json").read_text())
    assert (record["format"], record["version"]) == ("pixelbert_fast state", 1)
    assert (record["step"], record["world"], record["made_by"]) == (3, 1, {"revision": "abc"})
    assert record["files"] == {name: (state / name).stat().st_size for name in ("shared.pt", "rank-0.pt")}
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=state, check=True)
    hashes = dict(reversed(line.split("  ")) for line in (state / "SHA256SUMS").read_text().splitlines())
    assert hashes == {
        name: hashlib.sha256((state / name).read_bytes()).hexdigest()
        for name in ("shared.pt", "rank-0.pt", "state.json")
    }


@pytest.mark.parametrize("file", ["shared.pt", "rank-0.pt", "state.json", "SHA256SUMS"])
def test_cut_at_every_tenth_of_its_length_the_one_before_is_used(tmp_path, capsys, file):
    written(tmp_path, 1, 2)
    path = tmp_path / "step-00000002" / file
    whole = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        assert_reads(tmp_path, 1)
        assert "step-00000002 is damaged and passed over: " in capsys.readouterr().out
    path.write_bytes(whole)
    assert_reads(tmp_path, 2)


@pytest.mark.parametrize("file", ["shared.pt", "rank-0.pt", "state.json", "SHA256SUMS"])
def test_with_one_bit_turned_the_one_before_is_used(tmp_path, capsys, file):
    written(tmp_path, 1, 2)
    path = tmp_path / "step-00000002" / file
    whole = path.read_bytes()
    for place in range(0, len(whole), max(len(whole) // 23, 1)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert_reads(tmp_path, 1)
    assert "does not have the content that was written" in capsys.readouterr().out


def test_a_missing_file_is_told_by_its_name(tmp_path, capsys):
    written(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / "rank-0.pt").unlink()
    assert_reads(tmp_path, 1)
    assert "passed over: No such file or directory" in capsys.readouterr().out


def test_a_newer_format_is_one_sentence_and_no_older_state_is_taken(tmp_path, monkeypatch):
    written(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    written(tmp_path, 2)
    monkeypatch.setattr(checkpoint, "VERSION", 1)
    with pytest.raises(RunError, match=r"step-00000002 was written by a newer pixelbert_fast \(format 2"):
        StateFolder(tmp_path, ALONE).read()


class Failing:
    """Stands in for what the writing asks of the system, and fails with ENOSPC at one call of it."""

    def __init__(self, monkeypatch, at):
        self.calls, self.at = 0, at

        def counted(function):
            def call(*arguments, **options):
                self.calls += 1
                if self.calls == self.at:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return function(*arguments, **options)

            return call

        class File:
            def __init__(self, file):
                self._file = file
                self.write = counted(file.write)
                self.flush = counted(file.flush)
                self.close, self.fileno = file.close, file.fileno

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self._file.close()

        opened = counted(open)

        def opening(path, mode="r", **options):
            return File(opened(path, mode, **options)) if "w" in mode else open(path, mode, **options)

        monkeypatch.setattr(durable, "open", opening, raising=False)
        for name in ("fsync", "replace", "mkdir"):
            monkeypatch.setattr(os, name, counted(getattr(os, name)))


def test_whichever_call_fails_a_whole_state_is_there_and_nothing_half(tmp_path, monkeypatch):
    written(tmp_path / "0", 1)
    with monkeypatch.context() as counting:
        calls = Failing(counting, at=0)
        written(tmp_path / "0", 2)
    assert calls.calls > 15
    failed = 0
    for at in range(1, calls.calls + 1):
        folder = tmp_path / str(at)
        written(folder, 1)
        with monkeypatch.context() as failing:
            Failing(failing, at=at)
            told = None
            try:
                written(folder, 2)
            except RunError as error:
                told = str(error)
        if told is None:  # what failed was only asking for a folder's names to be on the disk
            assert_reads(folder, 2)
        else:
            failed += 1
            assert told.endswith(f"under {folder}: No space left on device")
            assert names(folder) == ["step-00000001"]
            assert_reads(folder, 1)
        written(folder, 3)  # when there is space again
        assert_reads(folder, 3)
    assert failed > 10


def test_a_file_that_may_grow_no_further_leaves_the_one_before(tmp_path):
    """By the system's own limit, which every write meets as it meets a full disk."""
    states = written(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = {"model": {"weight": torch.ones(1 << 20)}, "optimizer": {}}
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(RunError, match=r"cannot write the state .*: File too large"):
            states.write(2, {"position": {}}, large, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["step-00000001"]
    assert_reads(tmp_path, 1)


def test_a_disk_that_keeps_something_else_is_noticed_before_the_state_counts(tmp_path, monkeypatch):
    written(tmp_path, 1)
    real = os.fsync

    def lossy(handle):
        real(handle)
        path = os.readlink(f"/proc/self/fd/{handle}")
        if path.endswith("shared.pt"):
            with open(path, "r+b") as file:
                file.seek(200)
                file.write(b"!")

    monkeypatch.setattr(os, "fsync", lossy)
    with pytest.raises(RunError, match=r"shared\.pt reads back otherwise than it was written"):
        written(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001"]


def test_only_after_the_new_one_is_whole_the_oldest_goes(tmp_path, monkeypatch):
    written(tmp_path, 1, 2)
    seen = []
    real = checkpoint.discard

    def look(path):
        StateFolder(tmp_path, ALONE).read()
        seen.append((path.name, names(tmp_path)))
        real(path)

    monkeypatch.setattr(checkpoint, "discard", look)
    written(tmp_path, 3)
    assert seen == [("step-00000001", ["step-00000001", "step-00000002", "step-00000003"])]


@pytest.mark.parametrize(("keep", "kept"), [(1, [5]), (2, [4, 5]), (9, [1, 2, 3, 4, 5])])
def test_as_many_as_asked_for_are_kept(tmp_path, keep, kept):
    written(tmp_path, 1, 2, 3, 4, 5, keep=keep)
    assert names(tmp_path) == [f"step-{step:08d}" for step in kept]


def test_states_of_a_course_that_was_left_never_push_out_the_good_one(tmp_path):
    written(tmp_path, 1, 4)
    (tmp_path / "step-00000004" / "shared.pt").write_bytes(b"")
    assert_reads(tmp_path, 1)
    written(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-00000002"]
    assert_reads(tmp_path, 2)


def test_what_killed_writers_left_is_cleared_by_the_next(tmp_path):
    written(tmp_path, 1)
    for name in ("step-00000002.partial", "step-00000000.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shared.pt").touch()
    assert_reads(tmp_path, 1)
    written(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_a_state_of_another_number_of_processes_has_no_part_of_ones_own(tmp_path):
    written(tmp_path, 1)
    path = tmp_path / "step-00000001"
    assert checkpoint.read_state(path, Ranks(rank=1, world=2)).mine is None
    assert checkpoint.read_state(path, ALONE).mine is not None


def test_the_first_tensor_that_differs_is_named():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    same = model.state_dict()
    assert first_misfit(same, model) is None
    other = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5)).state_dict()
    assert first_misfit(other, model) == "1.weight is [5, 3] there and [2, 3] in this model"
    assert first_misfit({"0.weight": same["0.weight"]}, model) == "it has no 0.bias"
    assert first_misfit({**same, "2.bias": torch.ones(1)}, model) == "it has 2.bias, which this model has not"
    # Divided by ZeRO 3, a parameter is empty and says what it was.
    model[0].weight.ds_shape = torch.Size([4, 4])
    assert first_misfit(same, model) == "0.weight is [3, 4] there and [4, 4] in this model"


DISK = """
import sys, torch
from pathlib import Path
from pixelbert_fast.errors import RunError
from pixelbert_fast.training.checkpoint import StateFolder
from pixelbert_fast.training.ranks import Ranks
folder, deed = Path(sys.argv[1]), sys.argv[2]
states = StateFolder(folder / "resume", Ranks())
def write(step, count):
    states.write(step, {}, {"model": {"weight": torch.full((count,), float(step))}}, {})
write(1, 1 << 18)
if deed == "full":
    (folder / "ballast").write_bytes(b"x" * (2 << 20))
else:
    import subprocess
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
try:
    write(2, 1 << 18)
except RunError as error:
    print("told:", error)
print("found:", states.read().record["step"], float(states.read().shared["model"]["weight"].sum()))
if deed == "full":
    (folder / "ballast").unlink()
    write(3, 1 << 18)
    print("then:", states.read().record["step"])
"""


@pytest.mark.parametrize(
    ("deed", "reason"), [("full", "No space left on device"), ("read-only", "Read-only file system")]
)
def test_on_a_real_disk_that_is_full_or_read_only(tmp_path, deed, reason):
    """A filesystem of 4 MB in a namespace of its own; a state takes a little more than 1 MB."""
    mount = f"mount -t tmpfs -o size=4m none {tmp_path}"
    isolated = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        possible = subprocess.run([*isolated, mount], capture_output=True, timeout=20).returncode == 0
    except OSError:
        possible = False
    if not possible:
        pytest.skip("this system mounts nothing for its users")
    line = f'{mount} && exec "{sys.executable}" -c "$0" {tmp_path} {deed}'
    done = subprocess.run([*isolated, line, DISK], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[0].startswith("told: cannot write the state to resume from under ")
    assert reason in lines[0]
    assert lines[1] == f"found: 1 {float(1 << 18)}"
    assert lines[2:] == (["then: 3"] if deed == "full" else [])
