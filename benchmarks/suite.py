"""Runs the stages of a suite, each in a process of its own with a time limit, into one report.

A stage that fails or hangs costs the others nothing, and what it had found by then is kept. The report is
written anew after each stage, so that an interrupted run leaves what it has measured; `--only` makes some
stages again and leaves the others of that file as they are.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import ceilings
import contest
import results_page
import torch
from rows import Row, with_shares

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
THREADS = 2
PACKAGES = ("transformers", "triton", "deepspeed", "nvidia-dali-cuda130", "pillow", "simplejpeg")


@dataclass
class Found:
    """What a stage finds, kept in a file as it comes.

    Attributes:
        device: where to measure.
        quick: sizes that only show that everything works.
        end: when the stage should begin nothing new, by `time.monotonic`.
    """

    device: str
    quick: bool
    end: float
    path: Path | None = None
    rows: list[Row] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def attempt(self, what: str, measure: Callable, *given: Any, **options: Any) -> None:
        """Adds what `measure` returns: rows, or rows and sentences why something could not be measured."""
        if time.monotonic() > self.end:
            self.failed.append(f"no time was left for {what}")
        else:
            try:
                found = measure(*given, **options)
            except Exception as error:
                first = (str(error) or "no message").splitlines()[0]
                self.failed.append(f"{what}: {type(error).__name__}: {first}")
            else:
                rows, reasons = found if isinstance(found, tuple) else (found, [])
                self.rows += rows
                self.not_measured += reasons
        self.keep()

    def keep(self) -> None:
        """Writes what is there, whole or not at all."""
        if self.path is not None:
            beside = self.path.with_name(self.path.name + ".part")
            beside.write_text(json.dumps(self.as_dict()), encoding="utf-8")
            beside.replace(self.path)

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = dict(self.more)
        if self.rows:
            found["rows"] = [row.as_dict() for row in self.rows]
        for name in ("failed", "not_measured"):
            if getattr(self, name):
                found[name] = [*found.get(name, []), *getattr(self, name)]
        return found


class Stage(NamedTuple):
    """A part of a suite: the seconds it may take, and what fills a `Found`."""

    seconds: float
    run: Callable[[Found], None]


class Suite(NamedTuple):
    """Stages in the order they run, and the seconds for all; `script` is the file that runs them on `device`.

    `finish`, if there is one, adds to a report what follows from its rows.
    """

    script: str
    command: str
    device: str
    stages: dict[str, Stage]
    most_seconds: float
    finish: Callable[[dict[str, Any]], None] | None = None


def machine(device: str) -> dict[str, Any]:
    """What the figures of a whole report depend on."""
    found = contest.machine(device)
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def file_name(device: str) -> str:
    """A machine as a part of a file's name: "intel-xeon-avx512-2-threads"."""
    if device.startswith("cuda"):
        said = torch.cuda.get_device_name(device)
    else:
        kind, threads = torch.backends.cpu.get_cpu_capability().lower(), torch.get_num_threads()
        said = f"{contest.processor_model()} {kind} {threads} thread{'s' if threads > 1 else ''}"
    said = re.sub(r"\((?:r|tm)\)|\b(?:processor|cpu|nvidia)\b|@.*?ghz", " ", said.lower())
    return re.sub(r"[^a-z0-9]+", "-", said).strip("-")


def revision() -> str:
    """Of the code: the commit, and whether files of it were changed; "unknown" without git."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=7", "--exclude=*", "--dirty=, changed"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip()


def main(suite: Suite, description: str, arguments: Sequence[str] | None = None) -> int:
    """The command line of a suite; returns 1 where a stage has failed."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default=suite.device, choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=THREADS, help="of a CPU")
    parser.add_argument("--output", type=Path, default=RESULTS, help="a folder")
    parser.add_argument("--only", action="append", choices=suite.stages, help="these stages; others are kept")
    parser.add_argument("--skip", action="append", default=[], choices=suite.stages, help="leave a stage out")
    parser.add_argument(
        "--quick", action="store_true", help="small: does everything work? Figures mean nothing"
    )
    parser.add_argument(
        "--patience", type=float, default=1.0, help="multiplies every limit, on a machine that is busy"
    )
    parser.add_argument("--stage", choices=suite.stages, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.stage:
        quick = options.quick or options.device != suite.device
        found = Found(options.device, quick, time.monotonic() + options.limit, options.output)
        suite.stages[options.stage].run(found)
        found.keep()
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"{suite.script}: torch sees no GPU here; --device cpu rehearses it on a CPU", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    return _all(suite, options)


def _all(suite: Suite, options: argparse.Namespace) -> int:
    name = file_name(options.device)
    date = datetime.date.today().isoformat()
    target = options.output / f"{name}-{date}.json"
    report: dict[str, Any] = {
        "machine": machine(options.device),
        "name": name,
        "date": date,
        "revision": revision(),
        "command": _command(suite, options),
        "ceilings": None,
        "stages": {},
    }
    if options.only and target.exists():
        report |= {key: value for key, value in json.loads(target.read_text()).items() if key != "revision"}
    chosen = [
        each
        for each in suite.stages
        if each not in options.skip and (not options.only or each in options.only)
    ]
    end = time.monotonic() + suite.most_seconds * options.patience - 10
    for number, each in enumerate(chosen, 1):
        seconds = max(min(suite.stages[each].seconds * options.patience, end - time.monotonic()), 1.0)
        print(f"{each} ({number} of {len(chosen)}), at most {seconds:.0f} s", flush=True)
        scratch = options.output / f".{name}-{each}.json"
        report["stages"][each] = _stage(suite, each, options, seconds, scratch)
        _write(suite, report, target)
    print(target.with_suffix(".md"))
    return int(any("failed" in stage for stage in report["stages"].values()))


def _command(suite: Suite, options: argparse.Namespace) -> str:
    """The command as given, but for where its results go."""
    said = [suite.command]
    if options.device != suite.device:
        said.append(f"--device {options.device}")
    if options.threads != THREADS:
        said.append(f"--threads {options.threads}")
    said += ["--quick"] if options.quick else []
    return " ".join(said)


def _stage(
    suite: Suite, name: str, options: argparse.Namespace, seconds: float, scratch: Path
) -> dict[str, Any]:
    """One stage in a process of its own; what it had kept when its time was up is not lost."""
    scratch.unlink(missing_ok=True)
    # It should begin nothing when four fifths of its time are over, and then not be stopped.
    command = [sys.executable, suite.script, "--stage", name, "--limit", str(0.8 * seconds)]
    command += ["--device", options.device, "--threads", str(options.threads), "--output", str(scratch)]
    command += ["--quick"] if options.quick else []
    start = time.monotonic()
    problem = None
    with subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr, start_new_session=True) as process:
        try:
            if process.wait(timeout=seconds):
                problem = f"the process ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            problem = f"stopped after {seconds:.0f} s"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    found = json.loads(scratch.read_text()) if scratch.exists() else {}
    scratch.unlink(missing_ok=True)
    if problem:
        found["failed"] = [*found.get("failed", []), problem]
    return {"seconds": round(time.monotonic() - start, 1), **found}


def _write(suite: Suite, report: dict[str, Any], target: Path) -> None:
    """The report with its page and plots, all shares by the ceilings of the same run."""
    measured = report["stages"].get("ceilings", {})
    if "ceilings" in measured:
        report["ceilings"] = measured["ceilings"]
    if report["ceilings"]:
        roofs = ceilings.Ceilings.of(report["ceilings"])
        for stage in report["stages"].values():
            stage["rows"] = [with_shares(row, roofs) for row in stage.get("rows", [])]
    if suite.finish is not None:
        suite.finish(report)
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    results_page.write(report, target.parent)


def measure_ceilings(found: Found) -> None:
    """The stage before all others."""
    rounds = 5 if found.quick else 30
    found.more["ceilings"] = ceilings.measure(found.device, rounds=rounds, seconds=3.0).as_dict()
