"""The state a run resumes from: written beside and renamed, so that a kill at any moment leaves a whole one.

A state is a folder `resume/step-00000123`: `state.json` (where the loop was, the configuration, the sizes of
the other files), `shared.pt` (model, optimiser, schedule) and `rank-N.pt` (that process's random generators
and own part). The two newest are kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelbert_fast.errors import RunError
from pixelbert_fast.training.ranks import Ranks

_KEPT = 2


class StateFolder:
    """The resume states of one run.

    Args:
        folder: where they lie; made when the first is written.
        ranks: the run's processes; every method is called by all of them, unless it says otherwise.
    """

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self._folder = folder
        self._ranks = ranks

    def write(self, step: int, record: dict[str, Any], shared: dict[str, Any], own: dict[str, Any]) -> None:
        """Write the state after update number `step`.

        Args:
            record: JSON-able; comes back as it is.
            shared: what is the same in every process; the first one's is written.
            own: what each process keeps for itself; its random generators are added.

        Raises:
            RunError: it cannot be written.
        """
        name = f"step-{step:08d}"
        partial = self._folder / f"{name}.partial"
        if self._ranks.first:
            shutil.rmtree(partial, ignore_errors=True)
        self._together(lambda: self._ranks.first and _save(shared, partial / "shared.pt"))
        mine = {"own": own, "random": random_state()}
        self._together(lambda: _save(mine, partial / f"rank-{self._ranks.rank}.pt"))
        if self._ranks.first:
            sizes = {path.name: path.stat().st_size for path in sorted(partial.glob("*.pt"))}
            record = {**record, "step": step, "world": self._ranks.world, "files": sizes}
            _write_text(partial / "state.json", json.dumps(record, indent=1))
            shutil.rmtree(self._folder / name, ignore_errors=True)
            os.replace(partial, self._folder / name)
            for old in self._states()[_KEPT:]:
                shutil.rmtree(old, ignore_errors=True)
        self._ranks.barrier()

    def _together(self, work: Callable[[], Any]) -> None:
        """Do `work` in every process; where it fails in one, all of them raise."""
        reason = "another process could not"
        failed = False
        try:
            work()
        except (OSError, RuntimeError) as error:  # torch.save tells of a full disk by a RuntimeError
            failed, reason = True, str(error).splitlines()[0]
        if self._ranks.any(failed):
            raise RunError(f"cannot write the state to resume from under {self._folder}: {reason}")

    def read(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None] | None:
        """The newest state that every process can read: its record, shared part, and own part.

        A damaged one is passed over for the older one beside it. The own part holds `own` and `random`, and
        is None where the state was written by another number of processes. None: nothing to resume from.

        Raises:
            RunError: there are states and none can be read.
        """
        states = self._ranks.first_does(lambda: [path.name for path in self._states()])
        for name in states:
            record, parts = self._read_one(self._folder / name)
            if not self._ranks.any(record is None):
                return record, *parts
            if self._ranks.first:
                print(f"the state {self._folder / name} is damaged and passed over", flush=True)
        if states:
            raise RunError(
                f"no state under {self._folder} can be read; --resume never trains from the beginning"
            )
        return None

    def remove(self) -> None:
        """Delete all states; by one process."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _states(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted((p for p in self._folder.glob("step-*") if p.suffix != ".partial"), reverse=True)

    def _record(self, state: Path) -> dict[str, Any] | None:
        try:
            record = json.loads((state / "state.json").read_text(encoding="utf-8"))
            whole = all((state / file).stat().st_size == size for file, size in record["files"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return record if whole else None

    def _read_one(self, state: Path) -> tuple[dict[str, Any] | None, tuple[dict, dict | None]]:
        record = self._record(state)
        if record is None:
            return None, ({}, None)
        try:
            shared = torch.load(state / "shared.pt", map_location="cpu", weights_only=True)
            own = None
            if record["world"] == self._ranks.world:
                own = torch.load(state / f"rank-{self._ranks.rank}.pt", map_location="cpu", weights_only=True)
        except Exception:  # torch and pickle raise many kinds for a damaged file
            return None, ({}, None)
        return record, (shared, own)


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of every global generator, in types that `torch.load(weights_only=True)` reads."""
    version, numbers, following = random.getstate()
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": [version, list(numbers), following],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned."""
    version, numbers, following = state["python"]
    random.setstate((version, tuple(numbers), following))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextlib.contextmanager
def undisturbed_random() -> Iterator[None]:
    """Whatever is drawn inside, the generators go on afterwards as if nothing had been."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


def _save(value: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())


def _write_text(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that it is whole or not there."""
    partial = path.with_name(f"{path.name}.partial")
    _write_text(partial, json.dumps(value, indent=2) + "\n")
    os.replace(partial, path)
