"""What `pixelbert selftest` found wrong is kept, and avoided by automatic choice until it passes again."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixelbert_fast import cli, ops
from pixelbert_fast.ops import backends, cpu_backend, verdicts
from tests import wrong_kernels

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
REASON = cpu_backend.why_not_loaded()
needs_library = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def test_the_tests_have_a_cache_of_their_own() -> None:
    assert Path.home() not in verdicts.file().parents


@pytest.mark.parametrize(
    ("value", "directory"), [("/some/where", "/some/where"), ("", "~/.cache"), ("relative", "~/.cache")]
)
def test_verdicts_lie_in_the_users_cache(value: str, directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert verdicts.file() == Path(directory).expanduser() / "pixelbert_fast" / "selftest.json"


def in_a_fresh_process() -> tuple[str, str]:
    """The backend that `pool_gather` takes by itself, and what is said on stderr."""
    code = (
        "import torch; from pixelbert_fast import ops; from pixelbert_fast.ops import backends\n"
        "with backends.watch() as ran: ops.pool_gather(torch.ones(1, 3, 2, 2), torch.tensor([[0]]))\n"
        "print(ran[0][1])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return result.stdout.strip(), result.stderr


def chosen() -> str:
    with backends.watch() as ran:
        ops.pool_gather(torch.ones(1, 3, 2, 2), torch.tensor([[0]]))
    return ran[0][1]


@needs_library
def test_what_fails_is_avoided_until_it_passes(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert chosen() == "cpu"
    with monkeypatch.context() as patched:
        wrong_kernels.break_kernel(patched, "pool_gather_forward", wrong_kernels.another_winner)
        assert cli.main(["selftest"]) == 1
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if "failed:" in line]
    assert line.split()[:4] == ["pool_gather", "cpu", "cpu", "failed:"]
    assert f"Automatic choice avoids what failed from now on: {verdicts.file()} says so." in printed

    with caplog.at_level(logging.WARNING, logger=backends.__name__):
        assert [chosen(), chosen()] == ["reference", "reference"]
    (record,) = caplog.records
    assert "avoids the backend 'cpu'" in record.message and "`pixelbert selftest`" in record.message
    name, said = in_a_fresh_process()
    assert name == "reference"
    assert said.count("automatic choice avoids the backend 'cpu'") == 1

    # Named, it runs; other ops keep theirs.
    with backends.watch() as ran:
        ops.pool_gather(torch.ones(1, 3, 2, 2), torch.tensor([[0]]), backend="cpu")
    assert ran == [("pool_gather", "cpu")]
    assert backends.choose("sample_positions", None, "cpu", torch.int32) == "cpu"

    assert cli.main(["selftest", "--seconds", "0"]) == 0
    assert chosen() == "reference", "a pass of some cases clears nothing"
    assert cli.main(["selftest"]) == 0
    assert "from now on" not in capsys.readouterr().out
    assert chosen() == "cpu"
    assert in_a_fresh_process() == ("cpu", "")


WRONG_POOL = {("pool_gather", "cpu"): "it is off"}


@needs_library
@pytest.mark.parametrize("change", ["version", "torch", "library", "triton", "device"])
def test_a_verdict_counts_where_it_was_found(
    change: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts.keep(CPU, WRONG_POOL, set())
    assert verdicts.avoided("cpu") == WRONG_POOL
    if change == "version":
        monkeypatch.setattr(verdicts, "__version__", "99.0.0")
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "99.0.0")
    elif change == "library":
        monkeypatch.setattr(verdicts, "library", lambda: Path(__file__))
    elif change == "triton":
        monkeypatch.setattr(verdicts, "_triton_version", lambda: "99.0.0")
    else:
        monkeypatch.setattr(verdicts, "device_name", lambda device: "another")
    verdicts.avoided.cache_clear()
    assert verdicts.avoided("cpu") == {}


def test_a_backend_wrong_on_one_gpu_is_avoided_on_all(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Automatic choice knows that tensors are on a GPU, not on which."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(verdicts, "device_name", str)
    verdicts.keep(torch.device("cuda", 1), {("pool_gather", "triton"): "it is off"}, set())
    assert verdicts.avoided("cuda") == {("pool_gather", "triton"): "it is off"}
    assert verdicts.avoided("cpu") == {}
    verdicts.keep(torch.device("cuda", 0), {}, {("pool_gather", "triton")})
    assert verdicts.avoided("cuda") == {("pool_gather", "triton"): "it is off"}


def test_verdicts_of_one_run_leave_the_others(cache: Path) -> None:
    verdicts.keep(CPU, WRONG_POOL | {("pixel_embed", "triton"): "it is far off"}, set())
    verdicts.keep(CPU, {("sample_positions", "cpu"): "x"}, {("pool_gather", "cpu")})
    assert set(verdicts.avoided("cpu")) == {("pixel_embed", "triton"), ("sample_positions", "cpu")}
    verdicts.keep(CPU, {}, set(verdicts.avoided("cpu")))
    assert verdicts.avoided("cpu") == {}
    assert json.loads(verdicts.file().read_text())["wrong"] == {}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"format": 99, "wrong": {}}', '{"format": 1, "wrong": [1]}', None]
)
def test_a_damaged_file_is_ignored_and_written_anew(
    content: str | None, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    verdicts.file().parent.mkdir(parents=True)
    if content is None:
        verdicts.file().write_bytes(b"\xff\xfe")
    else:
        verdicts.file().write_text(content)
    with caplog.at_level(logging.DEBUG, logger=verdicts.__name__):
        assert verdicts.avoided("cpu") == {}
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "is ignored" in caplog.text
    verdicts.keep(CPU, WRONG_POOL, set())
    assert verdicts.avoided("cpu") == WRONG_POOL


def test_writing_leaves_the_old_file_or_the_new_one(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts.keep(CPU, WRONG_POOL, set())
    before = verdicts.file().read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            verdicts.keep(CPU, {}, set(WRONG_POOL))
    assert verdicts.file().read_text() == before
    assert [path.name for path in verdicts.file().parent.iterdir()] == ["selftest.json"]


@needs_library
def test_without_permission_to_write_it_still_reports(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()  # stands for what cannot be written, for root as well
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cli.main(["selftest", "--seconds", "0"]) == 0
    assert "cannot" not in capsys.readouterr().out
    wrong_kernels.break_kernel(monkeypatch, "pool_gather_forward", wrong_kernels.one_rounding_off)
    assert cli.main(["selftest", "--seconds", "0"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(backends.OPS) * len(backends.BACKENDS) + 1
    assert lines[-1].startswith(
        "Automatic choice cannot be told, set XDG_CACHE_HOME to a writable directory: "
    )
