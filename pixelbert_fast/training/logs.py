"""What a run writes while it trains, in the first process only: JSON lines, TensorBoard, wandb, the bar."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.record_file import RecordFile, cut_records

# Called with every bar that moves, see `bars_go_to`.
_watcher: Callable[[Bar], None] | None = None


def check_wandb(options: Any) -> None:
    """Raises UserError where `options` (of `logging.wandb`) ask for wandb and it is not there."""
    if options is not None and importlib.util.find_spec("wandb") is None:
        raise UserError(
            "logging.wandb is given and wandb is not installed; pip install wandb, or leave logging.wandb out"
        )


class RunLog:
    """`log.jsonl` (one record a line) and `tensorboard/` under a run's folder, and wandb where asked for.

    Args:
        folder: the run's folder.
        writes: False makes every method do nothing (the other processes).
        resumed_step: records of later steps, left by a run that was killed after its last saved state, are
            dropped.
        wandb: the options of `logging.wandb`; None: no wandb. Where it cannot be reached, its files are
            written for `wandb sync`.
        described: the run's configuration, for wandb.
    """

    def __init__(
        self,
        folder: Path,
        *,
        writes: bool,
        resumed_step: int = 0,
        wandb: Any = None,
        described: Mapping[str, Any] | None = None,
    ) -> None:
        self._file = self._board = self._wandb = self._hook = None
        if not writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.jsonl"
        if resumed_step:
            cut_records(path, resumed_step)
        else:
            path.unlink(missing_ok=True)
        self._file = RecordFile(path)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            print(
                "tensorboard is not installed (the package's extra `train` brings it):"
                " the run is logged to log.jsonl only",
                file=sys.stderr,
            )
        else:
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)
            self._hook = threading.excepthook
            threading.excepthook = self._thread_ended
        if wandb is not None:
            self._wandb = _wandb_run(wandb, folder, described, resumed=bool(resumed_step))

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Write one record; a number that is not finite becomes null.

        The numbers also go to TensorBoard and wandb under `kind/name`, or `kind/name/name`.
        """
        if self._file is None:
            return
        self._file.write(_without_nan({"kind": kind, "step": step, **values}))
        numbers = _numbers(values, kind)
        self._show(numbers, step)
        if self._wandb is not None and numbers:
            self._wandb.log(dict(numbers), step=step)

    def _thread_ended(self, found: Any) -> None:
        # TensorBoard's, on a full disk: `_show` says so, in a sentence.
        if "tensorboard" not in type(found.thread).__module__ or not isinstance(found.exc_value, OSError):
            self._hook(found)

    def _show(self, numbers: list[tuple[str, float]], step: int) -> None:
        try:
            for name, value in numbers if self._board is not None else ():
                self._board.add_scalar(name, value, step)
        except OSError as error:  # of its thread, which has ended: a run outlasts a full disk
            self.say(f"warning: TensorBoard shows nothing after step {step}: {error.strerror}")
            self._board = None

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._file is not None:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Finish all."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.close()
        if self._hook is not None:
            threading.excepthook = self._hook
        if self._wandb is not None:
            self._wandb.finish()


def _wandb_run(options: Any, folder: Path, described: Mapping[str, Any] | None, *, resumed: bool) -> Any:
    import wandb

    note = folder / "wandb_id"
    asked = {
        "project": options.project,
        "entity": options.entity,
        "name": options.name or folder.name,
        "dir": str(folder),
        "config": dict(described or {}),
        "id": note.read_text(encoding="utf-8").strip() if resumed and note.is_file() else None,
        "resume": "allow",
    }
    try:
        run = wandb.init(mode=options.mode, **asked)
    except Exception as error:  # it raises many kinds where there is no network or nobody logged in
        reason = " ".join(str(error).split()) or type(error).__name__
        print(
            f"wandb cannot be reached ({reason}): its files go to {folder / 'wandb'}, for `wandb sync`",
            file=sys.stderr,
        )
        run = wandb.init(mode="offline", **asked)
    note.write_text(f"{run.id}\n", encoding="utf-8")
    return run


def _without_nan(value: Any) -> Any:
    """NaN is no JSON."""
    if isinstance(value, Mapping):
        return {name: _without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(values: dict[str, Any], prefix: str) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _numbers(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found.append((f"{prefix}/{name}", float(value)))
    return found


@contextlib.contextmanager
def bars_go_to(watcher: Callable[[Bar], None]) -> Iterator[None]:
    """Inside, no bar is shown: `watcher` is called with each when it moves, for one bar over several runs."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


class Bar(tqdm):
    """A progress bar that ends in a few words."""

    title = ""
    watcher: Callable[[Bar], None] | None = None

    def update(self, n: float = 1) -> bool | None:
        """Move by `n`."""
        if self.watcher is None:
            return super().update(n)
        self.n += n
        self.watcher(self)
        return None

    def say(self, parts: Sequence[str]) -> None:
        """Show as many of `parts`, from the first on, as the terminal has room for."""
        kept, room = [], self._room()
        for part in parts:
            room -= len(part) + 2
            if room < 0:
                break
            kept.append(part)
        self.set_postfix_str(", ".join(kept), refresh=False)

    def _room(self) -> int:
        if not sys.stderr.isatty():
            return 1000
        # As wide as it gets: the last step's number, hours left, and two columns of bar.
        rest = f"{self.desc}: {self.total}/{self.total} || 00:00:00 left"
        return shutil.get_terminal_size().columns - len(rest) - 2


def bar(
    title: str,
    total: int | None,
    done: int = 0,
    *,
    shown: bool = True,
    unit: str = "step",
    form: str | None = None,
) -> Bar:
    """A progress bar on stderr; where that is no terminal, a line now and then and not many a second.

    form: tqdm's `bar_format`, in place of the one of a run's steps.
    """
    interval = 0.5 if sys.stderr.isatty() else 15.0
    # A training run says its rate in pairs.
    steps = "{desc}: {n_fmt}/{total_fmt} |{bar}| {remaining} left{postfix}"
    made = Bar(
        total=total,
        initial=done,
        desc=title,
        unit=unit,
        disable=not shown or _watcher is not None,
        mininterval=interval,
        maxinterval=interval,
        dynamic_ncols=True,
        smoothing=0.1,
        bar_format=form or (steps if unit == "step" else None),
    )
    made.title, made.unit, made.watcher = title, unit, _watcher if shown else None
    return made
