"""The built sets of a pre-training run: what it trains on, and what it is evaluated on."""

from pathlib import Path

from pixelbert_fast.data.records import BuiltSet, open_set
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.architecture import evaluation_splits
from pixelbert_fast.tasks.pretraining.material import Part

# A caption is also shown with a wrong image, which takes a second one.
_LEAST = 2


def open_sets(config) -> tuple[list[Part], dict[str, tuple]]:
    """(what to train on, what to evaluate on) of `config.data`.

    What to evaluate on, by name: (split, the set's word categories). The name is the split's, "val", or with
    several sets the set's as well, "coco/val": each set is evaluated on those of `evaluation.splits` that it
    has.

    Raises UserError for a set or a split that is missing, or too small.
    """
    if config.data.sets is None:
        only = open_set(config.data.directory)
        splits = evaluation_splits(only, config, least=_LEAST)
        return [Part(only.split("train"))], {name: _asked(only, split) for name, split in splits.items()}
    opened = [open_set(one.directory, one.built_by) for one in config.data.sets]
    names = _names(opened)
    parts = [
        Part(built.split("train"), one.weight, str(built.directory))
        for built, one in zip(opened, config.data.sets, strict=True)
        if one.weight
    ]
    evaluated = {}
    for split in config.evaluation.splits:
        having = [
            (name, built)
            for name, built in zip(names, opened, strict=True)
            if built.card["counts"].get(split)
        ]
        if not having:
            raise UserError(f"none of data.sets has a split {split!r}; leave it out of evaluation.splits")
        found = {name: (built, built.split(split)) for name, built in having}
        enough = {name: of for name, of in found.items() if len(of[1]) >= _LEAST}
        if not enough:
            raise UserError(
                f"the split {split!r} has less than {_LEAST} images in each of data.sets, too few for an "
                "evaluation: build a set with more, or leave it out of evaluation.splits"
            )
        evaluated |= {f"{name}/{split}": _asked(*of) for name, of in enough.items()}
    return parts, evaluated


def _asked(built: BuiltSet, split) -> tuple:
    return split, built.card.get("word_categories")


def _names(opened: list[BuiltSet]) -> list[str]:
    """Each set's last folder, or its whole directory where two have the same."""
    last = [Path(built.directory).name for built in opened]
    return [
        name if name and last.count(name) == 1 else str(built.directory)
        for name, built in zip(last, opened, strict=True)
    ]
