"""What an ablation can be told: stages, rows, figures and readings, from a YAML file like a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from pixelbert_fast.errors import UserError, nearest
from pixelbert_fast.training.recipe_files import ablation_names, merged, read_layers, shown
from pixelbert_fast.training.recipes import override
from pixelbert_fast.training.section import NotNegative, Section

# Rows and stages are names of folders.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class StageConfig(Section):
    """One training, of every row that does not leave it out.

    Attributes:
        recipe: a file, seen from the ablation's own folder or from here, or one of the package's.
        change: options of the recipe that are other here, as a tree or by `key.path`.
        start: options (`start.checkpoint`, `start.backbone`, `tokenizer.path`) that name what another stage
            gives, and that stage. One that a row leaves out is replaced by what that one starts from.
        once: trained with the recipe's own seed for all seeds of the ablation, as published weights are.
    """

    recipe: str
    change: dict[str, Any] = {}
    start: dict[str, Name] = {}
    once: bool = False


class RowConfig(Section):
    """A row of the table.

    Attributes:
        name: of its folder.
        label: in the table; None: the name.
        leave_out: stages.
        every: options that are other in every stage of this row.
        change: options by stage.
        paper: what a paper reports for it, by figure, as the table shows it.
    """

    name: Name
    label: str | None = None
    leave_out: tuple[Name, ...] = ()
    every: dict[str, Any] = {}
    change: dict[Name, dict[str, Any]] = {}
    paper: dict[str, float] = {}

    @property
    def title(self) -> str:
        return self.label or self.name


class FigureConfig(Section):
    """A column of the table.

    Attributes:
        label: in the table; None: its name.
        stage: whose `metrics.json` holds it.
        path: where in that, as `metrics.test.accuracy`.
        scale: what it is multiplied by to be shown.
        chance: what guessing gives, as it is shown; None: unknown.
    """

    label: str | None = None
    stage: Name
    path: str
    scale: float = 100.0
    chance: float | None = None


class ClaimConfig(Section):
    """A part of a reading, of each of some figures: that a row is better than another, or rows near chance.

    Attributes:
        better, than: two rows.
        near_chance: rows.
        within: how far from chance is near, in the figure's units.
        of: figures.
    """

    better: Name | None = None
    than: Name | None = None
    near_chance: tuple[Name, ...] = ()
    within: NotNegative = 3.0
    of: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_kind(self) -> ClaimConfig:
        if bool(self.better) != bool(self.than) or bool(self.better) == bool(self.near_chance):
            raise ValueError("a claim has either better and than, a row each, or near_chance, a list of rows")
        return self

    @property
    def rows(self) -> tuple[str, ...]:
        return self.near_chance or (str(self.better), str(self.than))


class ReadingConfig(Section):
    """A sentence about the table.

    Attributes:
        says: the sentence.
        claims: what it is made of; it needs all of them.
    """

    says: str
    claims: Annotated[tuple[ClaimConfig, ...], Field(min_length=1)]


class AblationConfig(Section):
    """The whole tree.

    Attributes:
        output: a folder for each stage of each row and seed is in it, and the table.
        title: of the table.
        seeds: of the runs, each of every row.
        every: options that are other in every stage of every row.
        stages: what is trained, by name, in the order of training.
        rows: the table's, in order.
        figures: the table's columns, by name, in order.
        readings: sentences below the table, each with whether it holds.
    """

    output: str = "runs/ablation"
    title: str = "Ablation"
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)] = (0, 1, 2)
    every: dict[str, Any] = {}
    stages: Annotated[dict[Name, StageConfig], Field(min_length=1)]
    rows: Annotated[tuple[RowConfig, ...], Field(min_length=1)]
    figures: Annotated[dict[Name, FigureConfig], Field(min_length=1)]
    readings: tuple[ReadingConfig, ...] = ()

    def row(self, name: str) -> RowConfig:
        return next(row for row in self.rows if row.name == name)


def load_ablation(recipe: str | Path, overrides: Sequence[str] = ()) -> AblationConfig:
    """Read an ablation, with what it is based on, and change it by overrides (`key.path=value`).

    Raises:
        UserError: no such file, an unknown key or name, a value that does not fit, a mere recipe.
    """
    layers = read_layers(recipe)
    origin, tree = layers[0].origin, merged(layers)
    if "rows" not in tree or "stages" not in tree:
        raise UserError(
            f"{origin} is no ablation (it has no rows and stages); train by a recipe with"
            f" `pixelbert train --config {recipe}`, the package's ablations are {', '.join(ablation_names())}"
        )
    tree.setdefault("output", f"runs/{layers[0].name}")
    for text in overrides:
        override(tree, text)
    try:
        config = AblationConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(_sentence(error, origin)) from None
    _check_names(config, origin)
    folders = [layer.folder for layer in layers if layer.folder is not None]
    stages = {
        name: stage.model_copy(update={"recipe": _beside(stage.recipe, folders)})
        for name, stage in config.stages.items()
    }
    return config.model_copy(update={"stages": stages})


def _beside(recipe: str, folders: Sequence[Path]) -> str:
    return next((str(folder / recipe) for folder in folders if (folder / recipe).is_file()), recipe)


def _check_names(config: AblationConfig, origin: str) -> None:
    stages, rows = list(config.stages), [row.name for row in config.rows]
    for names, what in ((rows, "rows"), ([str(seed) for seed in config.seeds], "seeds")):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{origin}: two {what} are called {twice!r}; change one of them")
    earlier: list[str] = []
    for name, stage in config.stages.items():
        _known(stage.start.values(), earlier, f"{origin}: the stage {name!r} starts from", "an earlier stage")
        earlier.append(name)
        several = next((one for one in stage.start.values() if not config.stages[one].once), None)
        if stage.once and several is not None:
            raise UserError(
                f"{origin}: the stage {name!r} is trained once for all seeds and starts from {several!r},"
                f" which is not; make {several!r} once too, or {name!r} not"
            )
    for row in config.rows:
        _known([*row.leave_out, *row.change], stages, f"{origin}: the row {row.name!r} names", "a stage")
        _known(row.paper, config.figures, f"{origin}: the row {row.name!r} names", "a figure")
    for name, figure in config.figures.items():
        _known([figure.stage], stages, f"{origin}: the figure {name!r} is of", "a stage")
    for reading in config.readings:
        for claim in reading.claims:
            _known(claim.rows, rows, f"{origin}: the reading {reading.says!r} names", "a row")
            _known(claim.of, config.figures, f"{origin}: the reading {reading.says!r} names", "a figure")
            for name in claim.of if claim.near_chance else ():
                if config.figures[name].chance is None:
                    raise UserError(
                        f"{origin}: the reading {reading.says!r} is about chance, and the figure {name!r} has"
                        " none; give figures." + f"{name}.chance"
                    )


def _known(names: Iterable[str], known: Iterable[str], says: str, what: str) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            guess = nearest(name, known)
            hint = f"did you mean {guess!r}?" if guess else f"there are {', '.join(known) or 'none'}"
            raise UserError(f"{says} {name!r}, which is not {what}; {hint}")


def _sentence(error: ValidationError, origin: str) -> str:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        guess = nearest(str(first["loc"][-1]), set(_fields(AblationConfig)))
        return f"unknown key {key!r} in {origin}" + (f"; did you mean {guess!r}?" if guess else "")
    if first["type"] == "missing":
        return f"the key {key!r} is missing in {origin}"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{key} in {origin}: {reason}"
    return f"{key} = {shown(first['input'])} in {origin} is wrong: {reason[0].lower()}{reason[1:]}"


def _fields(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _fields(part)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)
