"""The training command, however it is started: by DeepSpeed's launcher, by python, as `pixelbert train`.

Exit status: 0 done, or stopped by SIGTERM or SIGUSR1 with its state saved (metrics.json tells the two apart);
1 a failure, 2 a user's mistake, 130 stopped by Ctrl-C. Before the first step and after the last, SIGTERM ends
a run at once, by the signal. DeepSpeed's launcher passes on the status of the first process that fails (247:
it was killed). At Ctrl-C it ends at once, with a traceback of its own, while the processes of the run finish
their step and save.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pixelbert_fast.durations import duration
from pixelbert_fast.errors import UserError, nearest

if TYPE_CHECKING:
    from pixelbert_fast.training.reporting import Reporter

_DESCRIPTION = """\
Train by a recipe. With no arguments: the recipe "demo", which pre-trains the tiny model on rendered scenes,
CPU or GPU. The run's folder gets checkpoint/ (for from_pretrained), metrics.json, log.jsonl, tensorboard/,
and report.html to look at."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    it = _Parser(
        prog="train.py", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("--config", metavar="RECIPE", help="a YAML file, or the name of one of the package's")
    it.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto: go on where the run in the output folder stopped, or show it again; never: replace it",
    )
    it.add_argument("--debug", action="store_true", help="show the traceback of an error")
    # DeepSpeed's launcher passes it; the environment says the same.
    it.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    it.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="options that replace the recipe's"
    )
    return it


def main(argv: Sequence[str] | None = None, *, reporter: Reporter | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        argv: the words after the command's name; None: the process's own.
        reporter: see `run.run`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parse(argv)
        return _train(arguments, reporter)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        return _failed(error, debug="--debug" in argv)


def _parse(argv: list[str]) -> argparse.Namespace:
    it = parser()
    known, unknown = it.parse_known_intermixed_args(argv)
    if unknown:
        options = [name for action in it._actions for name in action.option_strings]
        guess = nearest(unknown[0].partition("=")[0], options)
        hint = f"; did you mean {guess}?" if guess else "; an override is written key.path=value"
        raise UserError(f"unknown argument {unknown[0]!r}{hint}")
    return known


def _train(arguments: argparse.Namespace, reporter: Reporter | None) -> int:
    # The recipe first: a mistake in it is told before anything slow is imported.
    from pixelbert_fast.training.launcher import stop_with_launcher
    from pixelbert_fast.training.ranks import PeerError, launched, ranks_from_environment
    from pixelbert_fast.training.recipes import load_config

    # When a process dies, the C++ side of the others prints pages before they can say so in a sentence.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    try:
        config = load_config(arguments.config, arguments.overrides)
    except UserError:
        if launched() and ranks_from_environment().local_rank:
            raise PeerError(2) from None  # every process reads the recipe; one of each machine tells
        raise

    from pixelbert_fast.training import engine as engines
    from pixelbert_fast.training.run import run

    if launched():
        stop_with_launcher()
    name = engines.engine_name(config.training.engine)
    ranks = engines.start_ranks(name)
    try:
        result = run(config, ranks, name, resume=arguments.resume, reporter=reporter)
    except BaseException as error:
        told = ranks.explained(error)
        if told is error:
            raise
        raise told from error
    else:
        ranks.finished()
    finally:
        if name == "deepspeed":
            from pixelbert_fast.training.deepspeed_engine import leave

            leave()
    if ranks.first:
        print(closing(result), flush=True)
    return 0


def closing(result: Any) -> str:
    """The table a run ends with, and the paths it wrote."""
    metrics = result.metrics
    rows = [
        *(tuple(row) for row in metrics["summary"]),
        *(
            [("training what it starts from", duration(metrics["start_seconds"]))]
            if metrics["start_seconds"]
            else []
        ),
        ("training", duration(metrics["training_seconds"])),
        ("all together", duration(metrics["total_seconds"])),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    paths = [metrics["checkpoint"], str(result.folder.metrics_file), str(result.folder.path / "log.jsonl")]
    page = result.folder.path / "report.html"
    paths += [str(page)] if page.is_file() else []
    if result.before:
        lines.insert(0, f"{result.folder.path} holds this run, finished; --resume never trains it again")
    return "\n".join(["", *lines, "", *paths])


def _failed(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong, in one sentence, and return the exit status."""
    from pixelbert_fast.training.ranks import PeerError, exit_status

    if debug:
        traceback.print_exception(error)
    if isinstance(error, PeerError):
        return error.status  # the process that failed says why
    who = f"process {_rank()}: " if _rank() else ""
    if isinstance(error, KeyboardInterrupt):
        print(f"{who}interrupted; the same command goes on from the last saved state", file=sys.stderr)
    elif hasattr(error, "status"):
        print(f"{who}{error}", file=sys.stderr)
    elif isinstance(error, UserError):
        print(f"{who}error: {error}", file=sys.stderr)
    else:
        _tell_failure(error, who)
    return getattr(error, "status", exit_status(error))


def _rank() -> int:
    from pixelbert_fast.training.ranks import launched, ranks_from_environment

    return ranks_from_environment().rank if launched() else 0


def _tell_failure(error: BaseException, who: str) -> None:
    from pixelbert_fast.errors import RunError

    kind = "" if isinstance(error, RunError) else f"{type(error).__name__}: "
    reason = " ".join(str(error).split()) or "no reason given"
    hint = "" if isinstance(error, RunError) else " (--debug shows where)"
    print(f"{who}failed: {kind}{reason}{hint}", file=sys.stderr)
