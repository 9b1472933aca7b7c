"""A run's folder: whether there is a run in it, of which configuration, and what may be done with it.

The rule. `--resume auto` (the default): a finished run of the same configuration is shown again, an
unfinished one goes on, and a run of another configuration is an error, unless it ended before it began to
train: then the configuration was the mistake. `--resume never`: whatever run is there is replaced.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.durable import write_json

# What may differ between two sittings of one run: none of it changes what is computed beyond rounding.
_FREE = {
    ("output",),
    ("training", "engine"),
    ("training", "zero_stage"),
    ("training", "offload_optimizer"),
    ("training", "overlap_comm"),
    ("training", "reduce_bucket_size"),
    ("training", "contiguous_gradients"),
    ("deepspeed",),
    ("training", "threads"),
    ("training", "log_every"),
    ("training", "checkpoint_every_minutes"),
    ("training", "keep_states"),
    ("training", "log_samples"),
    ("training", "report"),
    ("evaluation", "best"),
    ("training", "prefetch"),
}
_OURS = (
    "run.json",
    "metrics.json",
    "log.jsonl",
    "report.html",
    "samples",
    "tensorboard",
    "checkpoint",
    "best",
    "resume",
)


class RunFolder:
    """The folder of one run.

    `run.json` holds the configuration of the run that is or was made here; `metrics.json` comes last and
    makes it finished. `checkpoint/` and `best/` are what `from_pretrained` reads, `resume/` what an
    unfinished run goes on from, `samples/` what each process was trained on (`training.log_samples`).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.metrics_file = self.path / "metrics.json"
        self.checkpoint = self.path / "checkpoint"
        self.best = self.path / "best"
        self.samples = self.path / "samples"
        self.resume = self.path / "resume"
        # Runs that come before this one, by the recipes of the configuration's start.
        self.earlier = {"backbone": self.path / "backbone", "checkpoint": self.path / "start"}
        self._held: int | None = None

    def hold(self) -> None:
        """Keep other runs out of the folder until `release`, or until this process has ended; by one process.

        The folder itself is locked, so that no file tells of a run that was killed. Where it cannot be
        (a file system without locks, a folder that cannot be made), nothing is kept out.

        Raises UserError where another process holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return  # `claim` says what is wrong with it
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            raise UserError(
                f"another process is training in {self.path}; wait for it, or choose another output=FOLDER"
            ) from None
        except OSError:
            os.close(held)
            return
        self._held = held

    def release(self) -> None:
        """Let others use the folder."""
        if self._held is not None:
            fcntl.flock(self._held, fcntl.LOCK_UN)  # closed, it would stay held by a child that was forked
            os.close(self._held)
            self._held = None

    def claim(
        self,
        config: dict[str, Any],
        resume: Literal["auto", "never"],
        made_by: dict[str, Any] | None = None,
    ) -> Literal["new", "started", "finished"]:
        """Decide what to do here and prepare the folder for it; by one process.

        Args:
            config: the run's configuration, JSON-able.
            made_by: what else a new run's `run.json` says of it, by name: versions, the machine.

        Raises:
            UserError: another configuration's run is here, or files that no run made; or the folder cannot
                be written.
        """
        found = self._configuration()
        if found is None:
            self._refuse_strangers()
        elif resume == "auto":
            difference = first_difference(found, config)
            if difference is None:
                return "finished" if self.metrics_file.is_file() else "started"
            if self.has_trained():
                key, there, here = difference
                raise UserError(
                    f"{self.path} holds a run with {key} = {there!r}, and now it is {here!r}; choose another"
                    " output=FOLDER, or --resume never to replace that run"
                )
        try:
            for name in _OURS:
                _remove(self.path / name)
            self.path.mkdir(parents=True, exist_ok=True)
            record = {"format": "pixelbert_fast run", "version": 1, "config": config, **(made_by or {})}
            write_json(self.path / "run.json", record)
        except OSError as error:
            raise UserError(
                f"the output {self.path} cannot be written ({error.strerror}); choose another output=FOLDER"
            ) from None
        return "new"

    def metrics(self) -> dict[str, Any]:
        """The finished run's `metrics.json`."""
        try:
            metrics = json.loads(self.metrics_file.read_text(encoding="utf-8"))
            if not isinstance(metrics, dict):
                raise ValueError("it holds no metrics")
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self.metrics_file} is damaged ({error}); run again with --resume never"
            ) from None
        return metrics

    def started_from(self, config: RunConfig) -> RunConfig:
        """`config` with what its start's recipes gave here, as files, in the place of the recipes."""
        given = {}
        for part, path in self.earlier.items():
            if getattr(config.start, f"{part}_recipe"):
                result = RunFolder(path).checkpoint
                # The file that the task "objects" saves its backbone in.
                given[part] = str(result / "backbone.safetensors" if part == "backbone" else result)
                given[f"{part}_recipe"] = None
        return config.model_copy(update={"start": config.start.model_copy(update=given)})

    def _configuration(self) -> dict[str, Any] | None:
        file = self.path / "run.json"
        if not file.is_file():
            return None
        try:
            found = json.loads(file.read_text(encoding="utf-8"))["config"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f"{file} is damaged; remove the folder {self.path} or choose another output=FOLDER"
            ) from None
        try:
            # Options that came after that run was made have the values it was made with: their defaults.
            return RunConfig.model_validate(found).model_dump(mode="json")
        except ValueError:
            return found  # an option or value that is no more; the comparison names it

    def has_trained(self) -> bool:
        """Whether a run here got as far as training."""
        # The log is opened when everything that training needs has been built.
        return any(path.exists() for path in (self.path / "log.jsonl", self.resume, self.metrics_file))

    def _refuse_strangers(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"the output {self.path} is a file; choose another output=FOLDER")
        for name in _OURS:
            if (self.path / name).exists():
                raise UserError(
                    f"{self.path} has a {name!r} in it that no run here made; choose another output=FOLDER"
                )


def lasting(config: dict[str, Any]) -> dict[str, Any]:
    """`config` (of a run, JSON-able) without what may differ between two sittings of one run."""

    def kept(tree: Any, place: tuple[str, ...]) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {key: kept(one, (*place, key)) for key, one in tree.items() if (*place, key) not in _FREE}

    return kept(config, ())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def first_difference(
    there: Any, here: Any, free: Collection[tuple[str, ...]] = _FREE, place: tuple[str, ...] = ()
) -> tuple[str, Any, Any] | None:
    """(key, there, here) of the first option that differs between two configurations and is not `free`."""
    if place in free:
        return None
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            found = first_difference(there.get(key), here.get(key), free, (*place, key))
            if found is not None:
                return found
        return None
    return None if there == here else (".".join(place), there, here)
