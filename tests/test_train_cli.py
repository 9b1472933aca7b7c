"""The training command from outside: what it starts with, writes, prints, and the status it ends with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pixelbert_fast.training import run as runs
from pixelbert_fast.training.cli import main
from pixelbert_fast.training.engine import start_ranks
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.recipes import load_config
from pixelbert_fast.training.signals import StopSignals
from tests.test_engine import environment, left_in_shared_memory, shared_memory
from tests.training_task import ToyTask

ROOT = Path(__file__).resolve().parents[1]
TOY = str(ROOT / "tests" / "training_task.py")
TRAIN = str(ROOT / "pixelbert_fast" / "train.py")
# What DeepSpeed's launcher gives the only process it starts.
LAUNCHED = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_SIZE": 1, "MASTER_ADDR": "127.0.0.1"}

RECIPE = """
training: {steps: 6, images_per_batch: 4, log_every: 2, prefetch: 0, checkpoint_every_minutes: 1e-9}
evaluation: {splits: [val]}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(RECIPE)
    return str(path)


def command(*arguments, launcher=(), script=TOY, **variables):
    start = [*launcher] if launcher else [sys.executable]
    return subprocess.run(
        [*start, script, *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=180,
        cwd=ROOT,
    )


def deepspeed_launcher():
    program = Path(sys.executable).parent / "deepspeed"
    assert program.is_file(), "DeepSpeed's launcher is not beside this Python"
    return [sys.executable, str(program)]


def test_deepspeeds_launcher_needs_nothing_set_and_leaves_nothing_behind(tmp_path, recipe):
    before = shared_memory()
    out = tmp_path / "run"
    done = command("--config", recipe, f"output={out}", launcher=deepspeed_launcher())
    assert done.returncode == 0, done.stderr[-2000:]
    assert not left_in_shared_memory(before)

    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 6
    assert metrics["accuracy"] == metrics["metrics"]["val"]["accuracy"] >= 0.0
    assert metrics["checkpoint"] == str(out / "checkpoint")
    assert (out / "checkpoint" / "model.pt").is_file()
    assert metrics["versions"]["deepspeed"] == "0.19.8"
    assert metrics["config"]["training"]["images_per_batch"] == 4
    assert 0 < metrics["training_seconds"] <= metrics["total_seconds"]
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    for name in ("loss", "part", "pairs_per_second", "gradient_norm", "lr", "epoch", "seconds"):
        assert name in lines[0]
    assert list((out / "tensorboard").glob("events*"))
    for shown in ("accuracy", "training", str(out / "checkpoint"), str(out / "metrics.json")):
        assert shown in done.stdout
    # A finished run leaves no state to resume from.
    assert not (out / "resume").exists()


def test_through_the_launcher_a_mistake_ends_with_2(tmp_path, recipe):
    done = command(
        "--config", recipe, f"output={tmp_path / 'run'}", "training.step=3", launcher=deepspeed_launcher()
    )
    assert done.returncode == 2
    assert "did you mean 'training.steps'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_killed_under_deepspeed_it_leaves_no_buffers_and_resumes_exactly(monkeypatch, tmp_path, recipe):
    before = shared_memory()
    out = tmp_path / "run"
    killed = command("--config", recipe, f"output={out}", **LAUNCHED, TOY_DEED="kill")
    assert killed.returncode == -signal.SIGKILL
    assert not left_in_shared_memory(before)
    resumed = command("--config", recipe, f"output={out}", **LAUNCHED)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert "going on after step 3 of 6" in resumed.stdout

    config = load_config(recipe, [f"output={tmp_path / 'straight'}"])
    task = ToyTask(config)
    monkeypatch.setattr(runs, "_make_task", lambda *_: task)
    runs.run(config, Ranks(), "plain")
    ours = torch.load(out / "checkpoint" / "model.pt", weights_only=True)
    # One came from DeepSpeed with a kill in between, the other from the plain engine without.
    straight = task.model.state_dict()
    assert all(torch.allclose(ours[name], straight[name], rtol=0, atol=1e-6) for name in ours)


def test_an_exception_under_deepspeed_leaves_no_buffers(tmp_path, recipe):
    before = shared_memory()
    arguments = ["--debug", "--config", recipe, f"output={tmp_path / 'run'}"]
    done = command(*arguments, **LAUNCHED, TOY_DEED="raise")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "failed: ValueError: the toy broke" in done.stderr
    assert not left_in_shared_memory(before)


def test_a_failure_is_one_sentence_and_status_1(monkeypatch, capsys, tmp_path, recipe):
    def fail(config, device):
        raise ValueError("the toy\nbroke")

    for name in ("LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(runs, "_make_task", fail)
    assert main(["--config", recipe, f"output={tmp_path / 'run'}"]) == 1
    assert capsys.readouterr().err == "failed: ValueError: the toy broke (--debug shows where)\n"


def test_ctrl_c_finishes_the_step_saves_and_ends_with_130(tmp_path, recipe):
    ready, out = tmp_path / "ready", tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, TOY, "--config", recipe, f"output={out}", "training.checkpoint_every_minutes=0"],
        env=environment(TOY_DEED="wait", TOY_READY=ready),
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    deadline = time.monotonic() + 120
    while not ready.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped after step 4; the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert [path.name for path in (out / "resume").iterdir()] == ["step-00000004"]


def test_a_second_ctrl_c_quits_at_once_but_the_launchers_sigterm_does_not(capsys):
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().err.count("Ctrl-C again quits at once") == 1


def test_the_script_puts_the_repository_first_on_the_path_and_its_own_folder_nowhere(tmp_path):
    """Beside train.py lie modules whose names other packages use; found first they would hide them."""
    spy = tmp_path / "sitecustomize.py"
    spy.write_text(
        "import atexit, sys\n"
        "atexit.register(lambda: print('PATH', *sys.path, 'FIRST', 'torch' in sys.modules, sep='\\n'))\n"
    )
    done = command("--help", script=TRAIN, PYTHONPATH=tmp_path)
    assert done.returncode == 0
    path, torch_imported = done.stdout.split("PATH\n")[1].split("\nFIRST\n")
    assert path.splitlines()[0] == str(ROOT)
    assert str(ROOT / "pixelbert_fast") not in path.splitlines()
    assert torch_imported.strip() == "False", "help should not wait for torch"


def test_a_mistake_is_told_without_importing_torch(tmp_path):
    done = command("--config", "dmo", script=TRAIN)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "error: there is no recipe 'dmo', neither a file nor one of the package's; did you mean 'demo'?"
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--confg", "demo"], ["unknown argument '--confg'", "did you mean --config?"]),
        (["--resume", "maybe"], ["--resume", "'auto'", "--help"]),
        (["seed"], ["'seed'", "key.path=value"]),
        (["seed=x"], ["seed = 'x'", "the command line"]),
        (["--config"], ["--config", "expected one argument"]),
        (["data.build=null", "data.directory=nowhere/at/all", "output=OUT"], ["nowhere/at/all"]),
        (["data.build.colour=1", "start.checkpoint_recipe=null", "output=OUT"], ["'colour'", "scenes"]),
    ],
)
def test_every_mistake_is_one_sentence_and_status_2(capsys, tmp_path, monkeypatch, arguments, words):
    for name in ("LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    arguments = [a.replace("OUT", str(tmp_path / "run")) for a in arguments]
    if "data.build=null" in arguments:
        arguments.append("start.checkpoint_recipe=null")
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert len(told.strip().splitlines()) == 1
    for word in words:
        assert word in told


@pytest.mark.parametrize(
    ("part", "kind", "needed"), [("backbone", "pretrain", "objects"), ("checkpoint", "objects", "pretrain")]
)
def test_a_recipe_to_start_from_must_be_one_of_its_task(capsys, tmp_path, part, kind, needed):
    other, mine = tmp_path / "other.yaml", tmp_path / "mine.yaml"
    other.write_text(f"task: {kind}\ntraining: {{steps: 1}}")
    mine.write_text(f"start: {{{part}_recipe: {other}}}\ntraining: {{steps: 1}}")
    assert main(["--config", str(mine), f"output={tmp_path / 'run'}"]) == 2
    assert f"must be one of the task {needed!r}" in " ".join(capsys.readouterr().err.split())


def test_local_rank_is_accepted_in_both_spellings():
    from pixelbert_fast.training.cli import parser

    for spelling in ("--local_rank=1", "--local-rank=1"):
        known = parser().parse_intermixed_args([spelling, "a=1", "--resume", "never", "b=2"])
        assert (known.local_rank, known.overrides, known.resume) == (1, ["a=1", "b=2"], "never")
    assert os.environ.get("LOCAL_RANK") is None


@pytest.mark.parametrize("options", [["--config", "nowhere"], ["training.engine=plain"]])
@pytest.mark.parametrize(("local", "told"), [(0, True), (1, False)])
def test_what_all_processes_find_is_told_by_one_of_each_machine(
    monkeypatch, tmp_path, capsys, options, local, told
):
    for name, value in {"RANK": 2 + local, "LOCAL_RANK": local, "WORLD_SIZE": 4, "LOCAL_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert main([*options, f"output={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == told
    assert said.startswith("process 2: error: " if told else "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_deepspeed_it_is_told_that_there_is_no_gpu(monkeypatch):
    # transformers imports it to save a model, and it would warn in the middle of a run.
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    start_ranks("plain")
    assert os.environ["DS_ACCELERATOR"] == "cpu"
