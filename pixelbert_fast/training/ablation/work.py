"""Training the runs of an ablation, one after the other; several processes may share the work."""

from __future__ import annotations

import fcntl
import gc
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.training.ablation.plan import Plan, Run
from pixelbert_fast.training.ablation.progress import Overall
from pixelbert_fast.training.ablation.records import check_record, write_record
from pixelbert_fast.training.logs import bars_go_to
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.reporting import Reporter
from pixelbert_fast.training.run import prepare_data, run

_WAIT = 2.0


def check(plan: Plan) -> None:
    """Raises UserError where a run of another configuration is in the way of one of `plan`.

    Rows and seeds that are new, or no more, are in nobody's way.
    """
    output = Path(plan.config.output)
    if output.exists() and not output.is_dir():
        raise UserError(f"the output {output} is a file; choose another output=FOLDER")
    for one in plan.runs:
        check_record(one)


def train(
    runs: Sequence[Run],
    output: str,
    finished: Callable[[Run], None],
    *,
    reporter: Reporter | None = None,
) -> None:
    """Finish all `runs`, those that are not: each in its own folder, going on where it was stopped.

    Runs that another process is at work on are left to it, and waited for.

    Args:
        runs: with all they start from.
        finished: called after each run of this process.
        reporter: writes the page about a run whose `training.report` asks for one.

    Raises:
        UserError: of a run, named.
        RunError: of the first run that failed, named; what does not start from one is finished by then.
        loop.Stopped: a signal asked for it; the same call goes on.
    """
    locks = Path(output) / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the output {output} cannot be written ({error.strerror}); choose another output=FOLDER"
        ) from None
    _build(runs, locks)
    failed: dict[int, RunError] = {}
    with Overall(runs) as shown, bars_go_to(shown.moved), _without_other_bars():
        while left := [one for one in runs if not (one.finished or _hopeless(one, failed))]:
            ours = next(_ours(left, locks), None)
            if ours is None:
                shown.begin(None)
                time.sleep(_WAIT)
                continue
            one, lock = ours
            try:
                if not one.finished:
                    shown.begin(one)
                    _train(one, reporter)
                    finished(one)
            except RunError as error:
                if one.finished:
                    raise  # not the run, but what came after it
                failed[id(one)] = error
                tqdm.write(f"{error}; going on with what does not start from it", file=sys.stderr)
            finally:
                lock.close()
        shown.begin(None)
    for one in runs:
        check_record(one)
    if failed:
        first, *others = failed.values()
        raise RunError(f"{first}{f'; {len(others)} more failed' if others else ''}") from first


def _hopeless(one: Run, failed: Collection[int]) -> bool:
    """Whether it, or what it starts from, has failed."""
    return id(one) in failed or any(_hopeless(parent, failed) for parent in one.parents)


@contextmanager
def _without_other_bars() -> Iterator[None]:
    """Without the one that transformers shows for each checkpoint it reads."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _ours(left: Sequence[Run], locks: Path) -> Iterator[tuple[Run, object]]:
    for one in left:
        if all(parent.finished for parent in one.parents):
            lock = _locked(locks / f"{one.name.replace('/', '.')}.lock")
            if lock is not None:
                yield one, lock


def _train(one: Run, reporter: Reporter | None) -> None:
    # Since it was looked at first, a process with another configuration may have been at work here.
    for each in (*one.parents, one):
        check_record(each)
    try:
        write_record(one)
        run(one.config, Ranks(), "plain", reporter=reporter)
    except UserError as error:
        raise UserError(f"{one.name}: {error}") from error
    except RunError as error:
        raise RunError(f"{one.name}: {error}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"{one.name}: {reason}; put that right, the same command goes on") from error
    finally:
        gc.collect()  # the next one's model and images come to where these were


def _build(runs: Sequence[Run], locks: Path) -> None:
    """The data sets that are not there yet, before several processes could want to."""
    configs = [one.config for one in runs if one.config.data.build and not one.finished]
    wanted = {config.data.directory: config for config in configs}
    for directory, config in wanted.items():
        if not Path(directory, "card.json").is_file():
            with _waited(locks / "data.lock"):
                prepare_data(config, Ranks())


def _locked(path: Path):
    """The open file that holds the lock until it is closed or the process ends; None: another has it.

    Raises UserError where there can be no lock: to wait for one would be to wait for ever.
    """
    file = None
    try:
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed by whoever holds the lock
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        if file is not None:
            file.close()
        raise UserError(
            f"{path} cannot be locked ({error.strerror}); choose an output=FOLDER whose file system can"
        ) from None
    return file


@contextmanager
def _waited(path: Path) -> Iterator[None]:
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
