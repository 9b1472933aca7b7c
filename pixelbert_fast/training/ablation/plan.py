"""Which runs an ablation takes: one for each stage of each row and seed, shared where they are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelbert_fast.errors import UserError, nearest
from pixelbert_fast.training.ablation.recipe import AblationConfig, RowConfig, StageConfig
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.folder import RunFolder, lasting
from pixelbert_fast.training.plan_epochs import set_sizes
from pixelbert_fast.training.plan_epochs import steps as steps_an_epoch
from pixelbert_fast.training.recipes import load_config

_SHARED = "shared"


@dataclass(eq=False)
class Run:
    """One run of a recipe.

    Attributes:
        stage: its name.
        name: of its folder under the ablation's: `ROW/seed-S/STAGE`, `shared/STAGE` of one for all seeds.
        config: the whole configuration.
        described: what makes it the run it is, JSON-able: the configuration without what changes nothing,
            and instead of the folders it starts from the runs that are there.
        digest: of that, without the options that have their defaults: an option that a later version adds
            makes no other run.
        parents: the runs it starts from.
        users: (row, seed) of all that it is a stage of, those that it is shared by included.
    """

    stage: str
    name: str
    config: RunConfig
    described: dict[str, Any]
    digest: str
    parents: list[Run]
    users: list[tuple[str, int]] = field(default_factory=list)

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.config.output)

    @property
    def finished(self) -> bool:
        return self.folder.metrics_file.is_file()

    def steps(self) -> int | None:
        """Updates; None where they are of an epoch whose set is not there yet."""
        options = self.config.training
        if options.steps is not None:
            return options.steps
        showings = [one.showings for one in set_sizes(self.config)]
        if None in showings:
            return None
        an_epoch = steps_an_epoch(sum(showings), options.images_per_batch, 1, options.accumulation)
        return max(round(an_epoch * options.epochs), 1)


class Plan:
    """All runs of an ablation, each after those it starts from.

    Attributes:
        runs: in the order of work: seed by seed, so that whole tables are there early.

    Raises UserError for an option that a stage's recipe does not know.
    """

    def __init__(self, config: AblationConfig) -> None:
        self.config = config
        self.runs: list[Run] = []
        self._by_place: dict[tuple[str, int, str], Run] = {}
        known: dict[str, Run] = {}
        for seed in config.seeds:
            for row in config.rows:
                for name, stage in config.stages.items():
                    if name not in row.leave_out:
                        run = self._run(row, seed, name, stage, known)
                        run.users.append((row.name, seed))
                        self._by_place[row.name, seed, name] = run

    def at(self, row: str, seed: int, stage: str) -> Run | None:
        """The run of a stage, None where the row leaves it out."""
        return self._by_place.get((row, seed, stage))

    def chosen(self, only: Mapping[str, Collection[str]]) -> list[Run]:
        """The runs of some rows, seeds and stages, with all they start from.

        Args:
            only: by "row", "seed" or "stage" which of them; one that is not given: all.

        Raises UserError for a name that is none of the ablation's.
        """
        config = self.config
        known = {
            "row": [row.name for row in config.rows],
            "seed": [str(seed) for seed in config.seeds],
            "stage": list(config.stages),
        }
        for what, names in only.items():
            if what not in known:
                raise UserError(f"--only takes row=, seed= and stage=, and not {what}=")
            for name in names:
                if name not in known[what]:
                    guess = nearest(name, known[what])
                    hint = f"did you mean {guess!r}?" if guess else f"there are {', '.join(known[what])}"
                    raise UserError(f"--only {what}={name}: there is no such {what}; {hint}")

        def asked(place: tuple[str, int, str]) -> bool:
            given = dict(zip(("row", "seed", "stage"), map(str, place), strict=True))
            return all(given[what] in names for what, names in only.items())

        wanted = {id(run) for place, run in self._by_place.items() if asked(place)}
        for run in reversed(self.runs):
            if id(run) in wanted:
                wanted.update(id(parent) for parent in run.parents)
        return [run for run in self.runs if id(run) in wanted]

    def _run(self, row: RowConfig, seed: int, name: str, stage: StageConfig, known: dict[str, Run]) -> Run:
        starts = {
            key: run
            for key, parent in self._starts(row, stage).items()
            if (run := self.at(row.name, seed, parent)) is not None
        }
        given_in = f"the stage {name!r} of the row {row.name!r}"
        # A page for each of so many runs costs more than it tells.
        options = ["training.report=false"]
        # The recipe's own start is for who trains by it alone.
        options += [f"{key}=null" for start in stage.start for key in _same_start(start)]
        for part in (self.config.every, stage.change, row.every, row.change.get(name, {})):
            options += _flat(part)
        if not stage.once:
            options.append(f"seed={seed}")
        _refuse_two_starts(options, starts, given_in)
        options += [f"{key}=null" for start in starts for key in _same_start(start)]

        def loaded(values: Mapping[str, str], output: str) -> RunConfig:
            own = [f"{key}={json.dumps(value)}" for key, value in values.items()]
            return load_config(
                stage.recipe, [*options, *own, f"output={json.dumps(output)}"], given_in=given_in
            )

        identity = loaded({key: f"{run.stage} {run.digest}" for key, run in starts.items()}, "")
        digest = _digest(lasting(identity.model_dump(mode="json", exclude_defaults=True)))
        if f"{name} {digest}" in known:
            return known[f"{name} {digest}"]
        place = _SHARED if stage.once else f"{row.name}/seed-{seed}"
        path = f"{place}/{name}"
        while any(run.name == path for run in self.runs):
            path = f"{path}-{row.name}"
        folder = Path(self.config.output) / path
        config = loaded({key: _result(key, run) for key, run in starts.items()}, str(folder))
        described = lasting(identity.model_dump(mode="json"))
        made = Run(name, path, config, described, digest, list(starts.values()))
        known[f"{name} {digest}"] = made
        self.runs.append(made)
        return made

    def _starts(self, row: RowConfig, stage: StageConfig) -> dict[str, str]:
        own: dict[str, str] = {}
        inherited: dict[str, str] = {}
        for key, parent in stage.start.items():
            if parent in row.leave_out:
                inherited.update(self._starts(row, self.config.stages[parent]))
            else:
                own[key] = parent
        return {**inherited, **own}


def _same_start(key: str) -> list[str]:
    """The options that say what `key` says: it, and the recipe that would train it first."""
    return [key, f"{key}_recipe"] if key in ("start.backbone", "start.checkpoint") else [key]


def _refuse_two_starts(options: Sequence[str], starts: Mapping[str, Run], given_in: str) -> None:
    last = dict(text.split("=", 1) for text in options)
    for key, run in starts.items():
        if last.get(key, "null") != "null":
            raise UserError(
                f"{given_in} has {key} = {last[key]}, and starts from the stage {run.stage!r} too; leave out"
                " one of them"
            )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={json.dumps(value)}"


def _digest(described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _result(key: str, run: Run) -> str:
    checkpoint = run.folder.checkpoint
    # The file that the task "objects" saves its backbone in.
    return str(checkpoint / "backbone.safetensors" if key == "start.backbone" else checkpoint)


def total_steps(runs: Sequence[Run]) -> int:
    """Updates of all of them, as far as they are known."""
    return sum(run.steps() or 0 for run in runs)
