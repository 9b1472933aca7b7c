"""Kill training commands from outside, at moments drawn at random, and compare what comes of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300.0
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT", "DS_ACCELERATOR")


@dataclass
class Moment:
    """One kill.

    Attributes:
        step: the step whose samples had been read, at least, when it came.
        writing: whether a state was being written, by what it left.
    """

    step: int
    writing: bool


@dataclass
class Outcome:
    """A run that was killed, beside one that was not."""

    name: str
    moments: list[Moment] = field(default_factory=list)
    tensors: int = 0
    other_tensors: list[str] = field(default_factory=list)
    steps: int = 0
    other_steps: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def same(self) -> bool:
        return bool(self.tensors and self.steps) and not self.other_tensors and not self.other_steps


class Command:
    """The training command with its arguments, as one process or as several of DeepSpeed's launcher."""

    def __init__(self, script: Path, *arguments: str, processes: int = 1, **variables: str) -> None:
        self._variables = variables
        self._line = [sys.executable, str(script), *arguments]
        self._processes = processes

    def start(self, log: Path) -> subprocess.Popen:
        """Start it; what it prints is added to `log`."""
        line = self._line
        if self._processes > 1:
            program = Path(sys.executable).parent / "deepspeed"
            options = ["--num_accelerators", str(self._processes), "--master_port", str(free_port())]
            line = [sys.executable, str(program), *options, *self._line[1:]]
        kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
        more = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        if self._processes > 1:
            more["DS_ACCELERATOR"] = "cpu"
        with open(log, "a", encoding="utf-8") as out:
            return subprocess.Popen(
                line, env={**kept, **more, **self._variables}, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT
            )

    def finish(self, log: Path) -> None:
        """Start it and wait; RuntimeError where it fails."""
        process = self.start(log)
        if process.wait(PATIENCE):
            raise RuntimeError(f"{self._line} ended with {process.returncode}:\n{_end_of(log)}")


def kill_at(command: Command, out: Path, log: Path, step: int, draw: random.Random) -> Moment:
    """Start a sitting and kill all its processes at a moment drawn from `draw`, at `step` or soon after.

    Half of the moments lie within the writing of a state, as far as one who watches from outside can aim.
    """
    aim_at_write = draw.random() < 0.5
    delay = draw.uniform(0.0, 0.1 if aim_at_write else 0.3)
    began = time.time()
    process = command.start(log)
    until(lambda: last_step(out) >= step, process, log)
    if aim_at_write:
        until(lambda: _being_written(out, began), process, log)
    time.sleep(delay)
    kill_tree(process)
    return Moment(last_step(out), _being_written(out, began))


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL to a process and everything it has started, as when a machine goes away."""
    tree = [psutil.Process(process.pid)]
    tree += tree[0].children(recursive=True)
    for one in tree:
        one.suspend()  # so that none reacts to the end of another
    for one in tree:
        one.kill()
    process.wait()
    psutil.wait_procs(tree[1:], timeout=30)


def workers_of(process: subprocess.Popen, script: str) -> list[psutil.Process]:
    """The processes under a launcher that run `script` themselves."""
    found = []
    for one in psutil.Process(process.pid).children(recursive=True):
        line = one.cmdline()
        if any("local_rank" in word for word in line) and any(script in word for word in line[:3]):
            found.append(one)
    return found


def last_step(out: Path) -> int:
    """The newest step whose samples the first process has noted."""
    lines = samples_of(out / "samples" / "rank-0.jsonl")
    return lines[-1][0] if lines else 0


def samples_of(path: Path) -> list[tuple[int, list[int]]]:
    """(step, sample keys) of a process; a last line that was cut is left out."""
    found = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            found.append((record["step"], record["keys"]))
    return found


def tensors_of(checkpoint: Path) -> dict[str, str]:
    """The hash of every tensor's bytes."""
    import torch
    from safetensors.torch import load_file

    files = sorted(checkpoint.glob("*.safetensors"))
    state = load_file(files[0]) if files else torch.load(checkpoint / "model.pt", weights_only=True)
    return {
        name: hashlib.sha256(value.contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, value in state.items()
    }


def compare(outcome: Outcome, out: Path, straight: Path) -> None:
    """Fill in where the run in `out` is not the one in `straight`."""
    ours, theirs = tensors_of(out / "checkpoint"), tensors_of(straight / "checkpoint")
    outcome.tensors = len(theirs)
    outcome.other_tensors = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    for path in sorted((straight / "samples").iterdir()):
        expected, found = samples_of(path), samples_of(out / "samples" / path.name)
        outcome.steps += len(expected)
        if found != expected:
            outcome.other_steps.append(path.name)


def killed_run(
    name: str, make: Callable[..., Command], folder: Path, steps: int, kills: int, seed: int
) -> Outcome:
    """Train once through, and once with kills at steps below `steps`, and compare.

    make: the command that trains into a folder, with further options.
    """
    began = time.monotonic()
    outcome = Outcome(name)
    log, straight, out = folder / "log.txt", folder / "straight", folder / "killed"
    folder.mkdir(parents=True)
    make(straight, "training.checkpoint_every_minutes=0").finish(log)
    draw = random.Random(seed)
    for step in sorted(draw.sample(range(1, steps - 1), kills)):
        outcome.moments.append(kill_at(make(out), out, log, step, draw))
        print(f"{name}: kill {len(outcome.moments)} at {outcome.moments[-1]}", flush=True)
    make(out).finish(log)
    compare(outcome, out, straight)
    outcome.seconds = time.monotonic() - began
    return outcome


@dataclass
class Epoch:
    """What was seen in one epoch by a run whose number of processes changed."""

    samples: int
    repeated: int
    lost: int
    sittings: list[str]
    seconds: float


def changing_processes(make: Callable[[Path, int], Command], folder: Path, seed: int) -> Epoch:
    """One epoch by one process until it is killed, by two until SIGTERM, by one to the end."""
    began = time.monotonic()
    folder.mkdir(parents=True)
    log, straight, out = folder / "log.txt", folder / "straight", folder / "changed"
    make(straight, 1).finish(log)
    draw = random.Random(seed)
    first = kill_at(make(out, 1), out, log, draw.randint(12, 24), draw)
    sittings = [f"1 process, SIGKILL at step {first.step}"]
    pair = make(out, 2).start(log)
    until(lambda: bool(samples_of(out / "samples" / "rank-1.jsonl")), pair, log)
    goal = last_step(out) + draw.randint(5, 9)
    until(lambda: last_step(out) >= goal, pair, log)
    for worker in workers_of(pair, "train.py")[:1]:
        worker.terminate()  # one is told, and both stop after the same step
    status = pair.wait(PATIENCE)
    if status:
        raise RuntimeError(f"after SIGTERM the launcher ended with {status}:\n{_end_of(log)}")
    sittings.append(f"2 processes, SIGTERM to one of them at step {last_step(out)}, exit status {status}")
    make(out, 1).finish(log)
    sittings.append(f"1 process, to step {last_step(out)}")
    seen = [key for path in (out / "samples").iterdir() for _, keys in samples_of(path) for key in keys]
    expected = {key for _, keys in samples_of(straight / "samples" / "rank-0.jsonl") for key in keys}
    repeated = len(seen) - len(set(seen))
    difference = len(expected ^ set(seen))
    return Epoch(len(expected), repeated, difference, sittings, time.monotonic() - began)


def _being_written(out: Path, since: float) -> bool:
    """Whether a state is half written, by a process started at the time `since`."""
    for path in (out / "resume").glob("step-*.partial"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime > since:
                return True
    return False


def until(reached: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        if process.poll() is not None:
            raise RuntimeError(f"it ended by itself with {process.returncode}:\n{_end_of(log)}")
        if time.monotonic() > deadline:
            kill_tree(process)
            raise RuntimeError(f"nothing came of it in {PATIENCE:.0f} s:\n{_end_of(log)}")
        time.sleep(0.002)


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8")[-2000:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _say(line: str) -> None:
    print(line, flush=True)
