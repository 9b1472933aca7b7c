"""One bar over all runs of an ablation, and how long the rest will take by what the finished ones took."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pixelbert_fast.training.ablation.plan import Run
from pixelbert_fast.training.logs import Bar, bar

# Seconds between two looks at all the folders.
_EVERY = 0.5
_FORM = "{desc}: {n_fmt}/{total_fmt} steps |{bar}|"


class Rates:
    """Seconds a step, evaluation and preparation included, of runs that were finished.

    A run is judged by finished ones of its stage in its row, else of its stage, else of any.
    """

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str], tuple[float, int]] = {}
        self._read: set[int] = set()

    def read(self, run: Run) -> None:
        """Count a finished run, once."""
        if id(run) not in self._read:
            self._read.add(id(run))
            metrics = run.folder.metrics()
            self.add(run, metrics["total_seconds"], metrics["steps"])

    def add(self, run: Run, seconds: float, steps: int) -> None:
        """Count so many steps."""
        key = (run.stage, run.users[0][0])
        before = self._taken.get(key, (0.0, 0))
        self._taken[key] = before[0] + seconds, before[1] + steps

    def seconds(self, run: Run, steps: int) -> float | None:
        """Of so many steps of `run`; None where nothing was finished yet."""
        own = (run.stage, run.users[0][0])
        for fits in (lambda key: key == own, lambda key: key[0] == own[0], lambda key: True):
            taken = [value for key, value in self._taken.items() if fits(key)]
            done = sum(count for _, count in taken)
            if done:
                return steps * sum(seconds for seconds, _ in taken) / done
        return None


class Overall:
    """The bar: steps of all runs, the run at work, the time left. Used as a context manager.

    `moved` takes the bars of single runs (`logs.bars_go_to`).
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._steps = {id(run): run.steps() or 0 for run in runs}
        self._rates = Rates()
        self._bar = bar("ablation", max(sum(self._steps.values()), 1), form=_FORM)
        self._now: Run | None = None
        self._done, self._began, self._from, self._shown = 0, 0.0, 0, 0.0

    def __enter__(self) -> Overall:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, run: Run | None) -> None:
        """`run` is at work from now on; None: another process is."""
        self._now, self._done, self._began, self._from = run, 0, time.monotonic(), -1
        self._show("" if run is not None else "another process is at work")

    def moved(self, it: Bar) -> None:
        """The bar of the run at work has moved."""
        if it.unit == "step":
            if self._from < 0:
                self._from, self._began = int(it.n) - 1, time.monotonic()
            self._done = int(it.n)
            doing = ""
        else:
            doing = f"{it.title} {int(it.n)}{f' of {it.total}' if it.total else ''}"
        if time.monotonic() - self._shown >= _EVERY:
            self._show(doing)

    def _show(self, doing: str) -> None:
        self._shown = time.monotonic()
        finished = [run for run in self._runs if run is not self._now and run.finished]
        for run in finished:
            self._rates.read(run)
        done = sum(self._steps[id(run)] for run in finished)
        self._bar.n = done + self._done
        named = None if self._now is None else self._now.name
        words = ", ".join(word for word in (named, doing, self._left(finished)) if word)
        self._bar.bar_format = f"{_FORM} {words}"
        self._bar.update(0)

    def _left(self, finished: Sequence[Run]) -> str:
        done = {id(run) for run in finished}
        rates, seconds = self._rates, 0.0
        live = self._done - self._from
        if self._now is not None and live >= 10:
            rates = _with(rates, self._now, time.monotonic() - self._began, live)
        for run in self._runs:
            if id(run) in done:
                continue
            own = self._steps[id(run)] - (self._done if run is self._now else 0)
            needed = rates.seconds(run, max(own, 0))
            if needed is None:
                return ""
            seconds += needed
        return f"about {spoken(seconds)} left"


def _with(rates: Rates, run: Run, seconds: float, steps: int) -> Rates:
    both = Rates()
    both._taken = dict(rates._taken)
    both.add(run, seconds, steps)
    return both


def spoken(seconds: float) -> str:
    """A time as a person says it."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def plan_lines(runs: Sequence[Run], seeds: Sequence[int]) -> list[str]:
    """What there is to do, a line for each stage of each row, and what is done of it."""
    rates = Rates()
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        place = run.name if run.name.startswith("shared/") else run.users[0][0]
        groups.setdefault((place, run.stage), []).append(run)
        if run.finished:
            rates.read(run)
    lines, seconds, known = [], 0.0, True
    for (place, stage), group in groups.items():
        shared = place.startswith("shared/")
        steps = group[0].steps()
        rows = list(dict.fromkeys(row for row, _ in group[0].users))
        rows = [] if len(rows) == len({row for run in runs for row, _ in run.users}) else rows
        also = f", for {', '.join(rows)}" if rows and (len(rows) > 1 or shared) else ""
        done = sum(run.finished for run in group)
        name = place if shared else f"{place}/*/{stage}"
        count = "an epoch's" if steps is None else f"{steps:,}"
        state = f"{done} of {len(group)} done" if len(group) > 1 or done else "to do"
        lines.append(f"  {name:<36} {len(group):>2} x {count:>7} steps  {state}{also}")
        for run in group:
            needed = None if run.finished else rates.seconds(run, run.steps() or 0)
            known = known and (run.finished or needed is not None)
            seconds += needed or 0.0
    left = [run for run in runs if not run.finished]
    total = sum(run.steps() or 0 for run in runs)
    to_do = sum(run.steps() or 0 for run in left)
    told = f"{len(runs)} runs, {total:,} steps, seeds {', '.join(map(str, seeds))}"
    lines.append(f"{told}; to do: {len(left)} runs, {to_do:,} steps")
    if left and known:
        lines.append(f"about {spoken(seconds)} left, by what the finished runs took")
    return lines
