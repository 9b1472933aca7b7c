"""The state a run resumes from: written beside and renamed, so that a kill at any moment leaves a whole one.

A state is a folder `resume/step-00000123`: `state.json` (where the loop was, the configuration, what wrote
it, the sizes of the other files), `shared.pt` (model, optimiser, schedule, loss scaler), `rank-N.pt` (that
process's random generators and own part) and `SHA256SUMS` (of all of them; `sha256sum --check` reads it too).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from pixelbert_fast.errors import RunError
from pixelbert_fast.training.durable import (
    Content,
    content_of,
    discard,
    save_tensors,
    sync_folder,
    write_bytes,
)
from pixelbert_fast.training.ranks import Ranks

FORMAT = "pixelbert_fast state"
VERSION = 1
_STATE, _SHARED, _SUMS = "state.json", "shared.pt", "SHA256SUMS"
_NAME = re.compile(r"step-(\d+)")
_LEFT_OVER = re.compile(r"step-\d+\.(partial|removed)")


class StateRead(NamedTuple):
    """A state as it was written.

    Attributes:
        record: what `write` was given, with "step", "world" (how many processes wrote it) and "made_by".
        shared: what is the same in every process.
        mine: this process's {"own", "random"}; None where another number of processes wrote the state.
    """

    record: dict[str, Any]
    shared: dict[str, Any]
    mine: dict[str, Any] | None


class DamagedError(Exception):
    """A state that is not what was written; the message says why."""


class StateFolder:
    """The resume states of one run.

    Args:
        folder: where they lie, on a filesystem that all processes share; made when the first is written.
        ranks: the run's processes; every method is called by all of them, unless it says otherwise.
        keep: how many of the newest stay.
        made_by: JSON-able; goes into every record (versions, the source's revision).
    """

    def __init__(
        self, folder: Path, ranks: Ranks, *, keep: int = 2, made_by: Mapping[str, Any] | None = None
    ) -> None:
        self._folder = folder
        self._ranks = ranks
        self._keep = keep
        self._made_by = dict(made_by or {})

    def write(self, step: int, record: dict[str, Any], shared: dict[str, Any], own: dict[str, Any]) -> None:
        """Write the state after update number `step`, read it back, and only then delete the oldest.

        Args:
            record: JSON-able; comes back as it is.
            shared: what is the same in every process; the first one's is written.
            own: what each process keeps for itself; its random generators are added.

        Raises:
            RunError: it cannot be written, in every process; the states before are as they were.
        """
        partial = self._folder / f"step-{step:08d}.partial"
        written: dict[str, Content] = {}
        own_name = _rank_file(self._ranks.rank)
        mine = {"own": own, "random": random_state()}

        def save_parts() -> None:
            if self._ranks.first:
                written[_SHARED] = save_tensors(shared, partial / _SHARED)
            written[own_name] = save_tensors(mine, partial / own_name)

        try:
            self._together(lambda: self._ranks.first and self._begin(partial))
            self._together(save_parts)
            for rank, content in enumerate(self._gathered(written[own_name])):
                written[_rank_file(rank)] = content
            header = {"format": FORMAT, "version": VERSION, "made_by": self._made_by}
            record = {**header, **record, "step": step, "world": self._ranks.world}
            self._together(lambda: self._ranks.first and self._finish(partial, record, written))
        except RunError:
            if self._ranks.first:
                shutil.rmtree(partial, ignore_errors=True)  # what it takes of a full disk is needed
            raise

    def _begin(self, partial: Path) -> None:
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if _LEFT_OVER.fullmatch(path.name):
                    shutil.rmtree(path, ignore_errors=True)
        partial.mkdir(parents=True)
        sync_folder(self._folder.parent)

    def _finish(self, partial: Path, record: dict[str, Any], written: dict[str, Content]) -> None:
        for name, content in written.items():
            if not (partial / name).is_file() or (partial / name).stat().st_size != content.size:
                raise OSError(f"{name} of another machine is not seen here; give an output all can see")
        record["files"] = {name: content.size for name, content in written.items()}
        written[_STATE] = write_bytes(partial / _STATE, json.dumps(record, indent=1).encode())
        sums = "".join(f"{content.sha256}  {name}\n" for name, content in sorted(written.items()))
        write_bytes(partial / _SUMS, sums.encode())
        sync_folder(partial)
        state = partial.with_suffix("")
        if state.exists():
            discard(state)  # damaged, or the run would not have come here again
        os.replace(partial, state)
        sync_folder(self._folder)
        # Later steps are of a course that the run has left: passed over, and it went on from before them.
        before = [path for path in self._states() if _step(path) <= record["step"]]
        for old in set(self._states()) - set(before[: self._keep]):
            discard(old)

    def _gathered(self, content: Content) -> list[Content]:
        """Every process's, by rank."""
        sizes = self._ranks.gather(content.size)
        pieces = [self._ranks.gather(piece) for piece in struct.unpack("<4q", bytes.fromhex(content.sha256))]
        hashes = [struct.pack("<4q", *piece).hex() for piece in zip(*pieces, strict=True)]
        return [Content(*both) for both in zip(sizes, hashes, strict=True)]

    def _together(self, work: Callable[[], Any]) -> None:
        """Do `work` in every process; where it fails in one, all of them raise."""
        reason = "another process could not"
        failed = False
        try:
            work()
        except (OSError, RuntimeError) as error:
            failed, reason = True, _told(error)
        if self._ranks.any(failed):
            raise RunError(f"cannot write the state to resume from under {self._folder}: {reason}")

    def read(self) -> StateRead | None:
        """The newest state that every process can read; a damaged one is passed over for an older one.

        None: nothing to resume from.

        Raises:
            RunError: there are states and none can be read, or the newest whole one is of a newer format.
        """
        states = self._ranks.first_does(lambda: [path.name for path in self._states()])
        for name in states:
            found, reason = None, "another process cannot read it"
            try:
                found = read_state(self._folder / name, self._ranks)
            except DamagedError as error:
                reason = str(error)
            if not self._ranks.any(found is None):
                return found
            if self._ranks.first:
                print(f"the state {self._folder / name} is damaged and passed over: {reason}", flush=True)
        if states:
            raise RunError(
                f"no state under {self._folder} can be read; --resume never trains from the beginning"
            )
        return None

    def remove(self) -> None:
        """Delete all states; by one process."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _states(self) -> list[Path]:
        """The newest first."""
        if not self._folder.is_dir():
            return []
        return sorted((p for p in self._folder.iterdir() if _NAME.fullmatch(p.name)), key=_step, reverse=True)


def read_state(state: Path, ranks: Ranks) -> StateRead:
    """Read one state's folder, every byte of it checked; each process reads what it needs.

    Raises:
        RunError: it is of a newer format.
        DamagedError: it is not what was written.
    """
    try:
        sums = _sums(state)
        _check(state / _STATE, sums)
        record = json.loads((state / _STATE).read_text(encoding="utf-8"))
        if record["format"] == FORMAT and record["version"] > VERSION:
            raise RunError(
                f"{state} was written by a newer pixelbert_fast (format {record['version']}; this one reads"
                f" {VERSION}); install that one, or --resume never trains from the beginning"
            )
        names = [_SHARED]
        if record["world"] == ranks.world:
            names.append(_rank_file(ranks.rank))
        for name in names:
            _check(state / name, sums, record["files"][name])
        shared, *mine = (torch.load(state / name, map_location="cpu", weights_only=True) for name in names)
    except (RunError, DamagedError):
        raise
    except Exception as error:  # torch, pickle and json raise many kinds for what they cannot read
        raise DamagedError(_told(error)) from None
    return StateRead(record, shared, mine[0] if mine else None)


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


def first_misfit(stored: Mapping[str, torch.Tensor], model: nn.Module) -> str | None:
    """Where a stored model first differs from `model` in its tensors' names and shapes; None: nowhere."""
    for name, value in model.state_dict(keep_vars=True).items():
        if name not in stored:
            return f"it has no {name}"
        # ZeRO 3 leaves an empty tensor in the place of one that it has divided, and says what it was.
        here, there = tuple(getattr(value, "ds_shape", value.shape)), tuple(stored[name].shape)
        if here != there:
            return f"{name} is {list(there)} there and {list(here)} in this model"
    unknown = sorted(stored.keys() - model.state_dict().keys())
    return f"it has {unknown[0]}, which this model has not" if unknown else None


def first_changed(stored: Mapping[str, torch.Tensor], model: nn.Module) -> str | None:
    """The first parameter that `model` does not train and that has another value in `stored`; None: none.

    What is not trained stays what it was when the run began, and something may have been computed by it
    meanwhile (a cache of embeddings). Parts that ZeRO 3 has divided cannot be told.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or hasattr(parameter, "ds_shape") or name not in stored:
            continue
        if not torch.equal(stored[name].to(parameter), parameter.detach()):
            return name
    return None


def _rank_file(rank: int) -> str:
    return f"rank-{rank}.pt"


def _step(state: Path) -> int:
    return int(state.name.removeprefix("step-"))


def _told(error: Exception) -> str:
    """An error's first line, without the errno's number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _sums(state: Path) -> dict[str, str]:
    lines = (state / _SUMS).read_text(encoding="utf-8").splitlines()
    return {name: found for found, name in (line.split("  ", 1) for line in lines)}


def _check(path: Path, sums: Mapping[str, str], size: int | None = None) -> None:
    found = content_of(path)
    if size is not None and found.size != size:
        raise DamagedError(f"{path.name} has {found.size:,} bytes of {size:,}")
    if found.sha256 != sums.get(path.name):
        raise DamagedError(f"{path.name} does not have the content that was written")
