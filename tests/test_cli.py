"""The `pixelbert` command: exit status, one sentence an error, and what it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import pixelbert_fast
from pixelbert_fast import cli, commands
from pixelbert_fast.data import build
from pixelbert_fast.data.build import BuildReport
from pixelbert_fast.data.catalogue import BUILDERS
from pixelbert_fast.errors import RunError, UserError

ROOT = Path(__file__).resolve().parent.parent


def build_line(out: Path) -> list[str]:
    return ["data", "build", "scenes", "--out", str(out), "--images", "40", "--workers", "1"]


def fail_with(error: BaseException):
    def build_set(*arguments: object, **options: object) -> None:
        raise error

    return build_set


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"pixelbert_fast {pixelbert_fast.__version__}\n"


@pytest.mark.parametrize("line", [["--help"], ["data", "--help"], ["data", "build", "--help"]])
def test_help(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line) == 0
    assert "Usage: pixelbert" in capsys.readouterr().out


def test_the_help_of_building_lists_every_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "build", "--help"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for name, listed in BUILDERS.items():
        assert f"{name} {listed.line}" in lines


@pytest.mark.parametrize("line", [[], ["data"]])
def test_no_command_shows_the_usage(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line) == 2
    assert capsys.readouterr().err.startswith("Usage: pixelbert")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["dta"], "Did you mean 'data'?"),
        (["data", "biuld"], "Did you mean 'build'?"),
        (["data", "build", "scenes", "--out", "x", "--imges", "4"], "did you mean --images?"),
        (
            ["data", "build", "scenes", "--out", "x", "--images", "four"],
            "takes a whole number for --images, not 'four'",
        ),
        (["data", "build", "scenes"], "Missing option '--out'"),
        (["data", "build", "scene", "--out", "x"], "did you mean 'scenes'?"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(
    line: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.startswith("pixelbert: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("there is no folder x"), 2, "there is no folder x"),
        (RunError("a worker died"), 1, "a worker died"),
        (
            ValueError("first line\nsecond line"),
            1,
            "failed with ValueError: first line (--debug shows where)",
        ),
        (MemoryError(), 1, "failed with MemoryError (--debug shows where)"),
        (KeyboardInterrupt(), 130, "run the same command again to go on"),
    ],
)
def test_what_goes_wrong_in_a_build_is_one_sentence(
    error: BaseException,
    status: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build, "build_set", fail_with(error))
    assert cli.main(build_line(tmp_path / "set")) == status
    said_in_fact = capsys.readouterr().err
    assert said in said_in_fact
    assert said_in_fact.count("\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        ["predict", "vqa", "photo.jpg", "what is it?"],
        ["predict", "nlvr2", "left.jpg", "right.jpg", "both show a dog"],
        ["evaluate", "vqa", "--checkpoint", "runs/x", "--data", "data/x"],
        ["env"],
    ],
)
def test_ctrl_c_is_one_sentence_and_status_130(
    line: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pixelbert_fast import environment_report
    from pixelbert_fast.data import records
    from pixelbert_fast.tasks.nlvr2 import checkpoint as nlvr2
    from pixelbert_fast.tasks.vqa import checkpoint as vqa

    stop = fail_with(KeyboardInterrupt())
    for module, name in (
        (vqa, "ask"),
        (nlvr2, "judge_pair"),
        (records, "open_set"),
        (environment_report, "report"),
    ):
        monkeypatch.setattr(module, name, stop)
    assert cli.main(line) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    # `predict` says first which model it takes when it is told none.
    assert captured.err.splitlines()[-1] == (
        "pixelbert: stopped; nothing was left half written, and the same command can be run again"
    )


@pytest.mark.parametrize("place", [0, 5])
def test_debug_shows_the_traceback_wherever_it_stands(
    place: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "build_set", fail_with(ValueError("broken")))
    line = build_line(tmp_path / "set")
    line.insert(place, "--debug")
    assert cli.main(line) == 1
    assert "Traceback" in capsys.readouterr().err


def test_what_a_builder_notes_of_its_source_is_printed_before_building(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_set(*arguments: object, **options: object) -> BuildReport:
        assert capsys.readouterr().out == "kept 3 photographs\nof 2 objects\n"
        return BuildReport(counts={"train": 5}, directory=tmp_path)

    builder = SimpleNamespace(notes=lambda: ["kept 3 photographs", "of 2 objects"])
    monkeypatch.setattr(build, "make_builder", lambda *arguments, **options: builder)
    monkeypatch.setattr(build, "build_set", build_set)
    assert cli.main(build_line(tmp_path)) == 0
    assert capsys.readouterr().out == f"{tmp_path}: train 5\n"


def test_the_report_counts_what_was_dropped_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = [{"key": str(i), "why": "no caption"} for i in range(1500)]
    dropped += [{"key": f"r{i}", "why": f"reason {i}"} for i in range(12)]
    published = ["12,000 images in train, as published"]
    report = BuildReport({"train": 12000, "val": 5}, dropped, tmp_path, published)
    monkeypatch.setattr(build, "build_set", lambda *arguments, **options: report)
    assert cli.main(build_line(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}: train 12,000, val 5"
    assert lines[1] == "12,000 images in train, as published"
    assert lines[2].startswith("dropped 1,512 ")
    assert lines[3].split() == ["1,500", "no", "caption"]
    assert lines[-1].split() == ["3", "for", "3", "other", "reasons"]


def test_a_set_is_built_and_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    assert cli.main(build_line(out)) == 0
    first = capsys.readouterr()
    assert first.out.startswith(f"{out}: train ")
    assert "building scenes" in first.err
    assert (out / "card.json").is_file()
    assert cli.main(build_line(out)) == 0
    assert capsys.readouterr().out == first.out
    assert cli.main([*build_line(out), "--seed", "9"]) == 2
    assert str(out) in capsys.readouterr().err


def test_train_hands_over_every_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    from pixelbert_fast.training import cli as training_cli

    handed: list[str] = []

    def train_main(arguments: list[str], *, reporter: object) -> int:
        assert reporter is commands.report.report_run
        handed.extend(arguments)
        return 7

    monkeypatch.setattr(training_cli, "main", train_main)
    assert cli.main(["--debug", "train", "--config", "x.yaml", "training.steps=3", "--help"]) == 7
    assert handed == ["--config", "x.yaml", "training.steps=3", "--help", "--debug"]


@pytest.mark.parametrize(
    "command", [["-m", "pixelbert_fast.cli"], ["-c", "from pixelbert_fast.cli import entry_point as e; e()"]]
)
def test_the_exit_status_reaches_the_shell(command: list[str], tmp_path: Path) -> None:
    line = [sys.executable, *command, "data", "build", "scene", "--out", str(tmp_path / "set")]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "did you mean 'scenes'?" in result.stderr
    assert "Traceback" not in result.stderr
