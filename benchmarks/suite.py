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
import traceback
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
sys.path.insert(0, str(ROOT))

from pixelbert_fast.errors import UserError  # noqa: E402 - needs the path above

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
                self._enter(rows)
                self.not_measured += reasons
        self.keep()

    def _enter(self, rows: list[Row]) -> None:
        """Adds rows; a case that was measured before, with fewer contestants, gives way where it stands."""
        cases = {row.case for row in rows}
        again = [place for place, row in enumerate(self.rows) if row.case in cases]
        first = again[0] if again else len(self.rows)
        later = [row for row in self.rows[first:] if row.case not in cases]
        self.rows = [*self.rows[:first], *rows, *later]

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
        try:
            suite.stages[options.stage].run(found)
        except Exception as error:
            traceback.print_exc()
            found.failed.append(f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
        found.keep()
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"{suite.script}: torch sees no GPU here; --device cpu rehearses it on a CPU", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    # Else a stage, in a session of its own, would outlive what has started it.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _all(suite, options)
    except UserError as error:
        print(f"{suite.script}: {error}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)


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
    now = report["revision"]
    if options.only and target.exists():
        report |= _continued(target, report["machine"], options.quick)
    else:
        report["command"] += "".join(
            f" --{name} {each}" for name in ("only", "skip") for each in getattr(options, name) or []
        )
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
        report["stages"][each] = _stage(suite, each, options, seconds, scratch) | {"revision": now}
        report["revision"] = _revisions(report["stages"])
        shown = _write(suite, report, target)
    print(target.with_suffix(".md"))
    return int(not shown or any("failed" in stage for stage in report["stages"].values()))


def _continued(target: Path, machine: dict[str, Any], quick: bool) -> dict[str, Any]:
    """The report of a file whose other stages are kept.

    Raises:
        UserError: it is of another machine, or was quick and this is not: its figures do not stand beside.
    """
    report = json.loads(target.read_text(encoding="utf-8"))
    unlike = [
        name for name in {**machine, **report["machine"]} if machine.get(name) != report["machine"].get(name)
    ]
    if ("--quick" in report["command"]) != quick:
        unlike.append("--quick")
    if unlike:
        raise UserError(
            f"{target} was measured with another {', '.join(unlike)}: its stages cannot be kept beside new"
            " ones; choose another --output, or leave --only out"
        )
    for stage in report["stages"].values():
        stage.setdefault("revision", report.get("revision", "unknown"))
    return report


def _revisions(stages: dict[str, dict[str, Any]]) -> str:
    """Of the code that measured a report; where stages were made again, which by which."""
    by: dict[str, list[str]] = {}
    for name, stage in stages.items():
        by.setdefault(stage["revision"], []).append(name)
    return next(iter(by)) if len(by) == 1 else "; ".join(f"{one} ({', '.join(by[one])})" for one in by)


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
            scratch.unlink(missing_ok=True)
            scratch.with_name(scratch.name + ".part").unlink(missing_ok=True)
            raise
    found = json.loads(scratch.read_text()) if scratch.exists() else {}
    scratch.unlink(missing_ok=True)
    if problem:
        found["failed"] = [*found.get("failed", []), problem]
    return {"seconds": round(time.monotonic() - start, 1), **found}


def _write(suite: Suite, report: dict[str, Any], target: Path) -> bool:
    """The report with its page and plots, all shares by the ceilings of the same run; False without page.

    What cannot be drawn must not cost the stages that are still to come: the page can be made later.
    """
    measured = report["stages"].get("ceilings", {})
    if "ceilings" in measured:
        report["ceilings"] = measured["ceilings"]
    if report["ceilings"]:
        roofs = ceilings.Ceilings.of(report["ceilings"])
        for stage in report["stages"].values():
            stage["rows"] = [with_shares(row, roofs) for row in stage.get("rows", [])]
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    try:
        if suite.finish is not None:
            suite.finish(report)
            target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        results_page.write(report, target.parent)
    except Exception:
        traceback.print_exc()
        print(f"the page was not written; python benchmarks/results_page.py {target}", file=sys.stderr)
        return False
    return True


def measure_ceilings(found: Found) -> None:
    """The stage before all others."""
    rounds = 5 if found.quick else 30
    found.more["ceilings"] = ceilings.measure(found.device, rounds=rounds, seconds=3.0).as_dict()
