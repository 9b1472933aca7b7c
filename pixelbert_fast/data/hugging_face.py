"""The builder of `huggingface`: any set that the `datasets` library opens, by naming its columns.

The source is the name of a set on a hub, or a directory: one written by ``save_to_disk``, or one that
``load_dataset`` understands (Parquet files, an imagefolder with its metadata.csv, ...). The image column
holds ``datasets.Image``, encoded bytes, or paths; a caption is a text or a list of texts. A row is a record.

``load_dataset`` keeps a copy of what it reads in its own cache ($HF_HOME), as ever.
"""

import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pixelbert_fast.data.blocks import Dropped, no_bars
from pixelbert_fast.data.build import Plan
from pixelbert_fast.data.declared_files import check_declared, check_saved, is_plain
from pixelbert_fast.data.image_files import ImageFolder, Unusable, image_columns
from pixelbert_fast.data.official import (
    DUPLICATE,
    NO_CAPTION,
    AnnotationFile,
    Keys,
    clean_captions,
    columns_named,
    named_values,
    split_named,
    split_of,
    split_shares,
    storable,
)
from pixelbert_fast.data.records import SPLITS
from pixelbert_fast.errors import UserError

_OURS = ("image", "caption", "key", "split")
_ROW_BITS = 48
# What a local set is made of, by which the card tells it; images beside them are not read twice for it.
_TABLES = (".arrow", ".parquet", ".csv", ".tsv", ".json", ".jsonl")
_OUTSIDE = "image lies outside the set and of the folder --images"


class HuggingFace:
    """Records of a Hugging Face set.

    Args:
        source: the name of a set on a hub, or a local directory.
        column: the set's names of our columns, {"image": "photo", "caption": "text"}; "key" names one that
            tells images apart (by default the row does), "split" one with the splits' names, and "caption"
            may name several columns, by commas.
        share: of val and test, by a hash of the key, as {"val": 0.05}, where the set has one split.
        config: the configuration of a set that has several.
        images: the folder that paths in the image column are relative to; by default the source.

    Raises UserError for a set that cannot be opened and for wrong columns or shares.
    """

    name = "huggingface"
    revision = 1

    def __init__(
        self,
        source: str,
        column: Sequence[str] | Mapping[str, str] = (),
        share: Sequence[str] | Mapping[str, float] = (),
        config: str | None = None,
        images: Path | None = None,
    ):
        self.column, self.shares = named_values("column", column, _OURS), split_shares(share)
        self.config, source = config, str(source)
        local = Path(source).expanduser()
        self.directory = local.resolve() if local.is_dir() else None
        self.source = str(self.directory or source)
        if self.directory is None and (
            local.exists() or local.is_absolute() or source.startswith((".", "~"))
        ):
            raise UserError(
                f"{self.name}: there is no directory {source}: give one, or the name of a set on a hub"
            )
        self.folder = None
        if images is not None or self.directory is not None:
            self.folder = ImageFolder(self.name, images if images is not None else self.directory)
        opened = _opened(self.source, self.directory, config)
        self.origin = _origin(opened)
        self.left_out = [name for name in opened if split_named(name) is None]
        sets = {name: one for name, one in opened.items() if name not in self.left_out}
        if not sets:
            raise UserError(
                f"{self.source} has no split that is train, val or test, it has: {', '.join(self.left_out)}"
            )
        # A column that only happens to be called key or split is not taken for one.
        optional = [ours for ours in ("key", "split") if ours in self.column]
        for name, one in sets.items():
            where = f"{self.source} ({name})"
            self.columns = columns_named(where, self.column, list(one.features), optional=optional)
            self._check_kinds(one)
        if self.shares and ("split" in self.columns or len(sets) > 1):
            raise UserError(f"{self.source} has splits of its own: leave out --share")
        # The rows as they are stored, without the columns that are not used: an image is never decoded here.
        self.sets = {name: _undecoded(one, self.columns) for name, one in sets.items()}

    def options(self) -> dict:
        """The set's identity; the fingerprints are those that `datasets` keeps of what it opened."""
        return {
            "source": self.source,
            "config": self.config,
            "column": self.column,
            "share": self.shares,
            "images": None if self.folder is None else str(self.folder.root),
            "fingerprints": self.origin["fingerprints"],
            "revision": self.revision,
        }

    def notes(self) -> list[str]:
        """The splits that were found."""
        lines = [f"{self.source}: " + ", ".join(f"{name} {len(one):,}" for name, one in self.sets.items())]
        if self.left_out:
            lines.append(f"left out, being none of train, val and test: {', '.join(self.left_out)}")
        return lines

    def plan(self) -> Plan:
        """The rows of each split; where columns name keys or splits, only these columns are read."""
        splits, dropped, keys = {split: array("Q") for split in SPLITS}, [], Keys()
        for number, (name, one) in enumerate(self.sets.items()):
            for row, columns in self._told(one):
                key = self._key(name, row, columns)
                split = split_named(columns.get("split")) if "split" in self.columns else split_named(name)
                if not key:
                    dropped.append(Dropped(f"{name}-{row}", "no key"))
                elif "key" in self.columns and not keys.take(key):
                    dropped.append(Dropped(key, DUPLICATE))
                elif split is None:
                    dropped.append(Dropped(key, "split is none of train, val, test"))
                else:
                    split = split_of(key, self.shares) if self.shares else split
                    splits[split].append(number << _ROW_BITS | row)
        if not any(splits.values()):
            why = f": {dropped[0].why}" if dropped else ""
            raise UserError(f"{self.source} has no row that can be used{why}")
        card = {**self.origin, "annotations": self._files(), "splits left out": self.left_out}
        card["dropped"] = [{"key": storable(one.key), "why": one.why} for one in dropped]
        return Plan(splits, card)

    def render(self, spec: int) -> dict | Dropped:
        """The record of one row."""
        name = self._names[spec >> _ROW_BITS]
        row = spec & (1 << _ROW_BITS) - 1
        columns = self.sets[name][row]
        theirs = self.columns.get("key")
        key = columns.get(theirs)
        if theirs is not None:
            key = _label(key, getattr(self.sets[name].features[theirs], "names", None))
        key = self._key(name, row, {"key": key})
        texts = []
        for column in self.columns["caption"]:
            value = columns[column]
            texts += value if isinstance(value, list) else [value]
        captions = clean_captions(texts)
        if not captions:
            return Dropped(key, NO_CAPTION)
        try:
            return {"key": key, **self._image(columns[self.columns["image"]]), "captions": captions}
        except Unusable as why:
            return Dropped(key, str(why))

    @cached_property
    def _cache(self) -> ImageFolder:
        """Where the files that a hub's set refers to were downloaded to."""
        from datasets import config

        return ImageFolder(self.name, config.HF_CACHE_HOME)

    @cached_property
    def _names(self) -> list[str]:
        return list(self.sets)

    def _told(self, one: Any) -> Iterator[tuple[int, dict]]:
        """Each row's number with its key and split, as far as columns name these."""
        named = {ours: self.columns[ours] for ours in ("key", "split") if ours in self.columns}
        if not named:
            yield from ((row, {}) for row in range(len(one)))
            return
        # What is stored as the number of a name is meant by its name.
        names = {ours: getattr(one.features[theirs], "names", None) for ours, theirs in named.items()}
        for row, columns in enumerate(one.select_columns(list(dict.fromkeys(named.values())))):
            values = {ours: columns[theirs] for ours, theirs in named.items()}
            yield row, {ours: _label(value, names[ours]) for ours, value in values.items()}

    def _key(self, name: str, row: int, columns: dict) -> str:
        if "key" not in self.columns:
            return f"{name}-{row:09d}"
        key = columns["key"]
        return "" if key is None else storable(str(key))

    def _image(self, value: Any) -> dict:
        """The columns of an image as it is stored. Raises Unusable."""
        path = value
        if isinstance(value, dict):
            value, path = value.get("bytes"), value.get("path")
        if isinstance(value, bytes):
            return image_columns(value)
        if not path:
            raise Unusable("no image")
        folder = self.folder or self._cache
        if os.path.isabs(path):
            # Links on the way are no reason: `find` looks at where the file itself lies.
            real = os.path.realpath(path)
            if not Path(real).is_relative_to(folder.root):
                raise Unusable(_OUTSIDE)
            path = os.path.relpath(real, folder.root)
        return folder.read(path)

    def _check_kinds(self, one: Any) -> None:
        """UserError unless the columns that are read are of the kinds that are understood."""
        from datasets import ClassLabel, Image, Value

        image = self.columns["image"]
        kind = one.features[image]
        binary = isinstance(kind, Value) and kind.dtype in (
            "binary",
            "large_binary",
            "string",
            "large_string",
        )
        if not (isinstance(kind, Image) or binary):
            raise UserError(f"{self.source}: column {image!r} holds {kind}, not images, bytes or paths")
        for ours in ("key", "split"):  # what `datasets` decodes by itself would be decoded without a bound
            kind = one.features[self.columns[ours]] if ours in self.columns else None
            if kind is not None and not isinstance(kind, (Value, ClassLabel)):
                raise UserError(f"{self.source}: column {self.columns[ours]!r} holds {kind}, not one value")
        for caption in self.columns["caption"]:
            kind = one.features[caption]
            kind = getattr(kind, "feature", kind)
            if not (isinstance(kind, Value) and kind.dtype in ("string", "large_string")):
                raise UserError(
                    f"{self.source}: column {caption!r} holds {kind}, not a text or a list of texts"
                )

    def _files(self) -> list[dict]:
        if self.directory is None:
            return []
        paths = sorted(path for path in self.directory.rglob("*") if path.suffix.lower() in _TABLES)
        files = [(path, AnnotationFile(self.name, path)) for path in paths if path.is_file()]
        return [{**file.entry(), "file": str(path.relative_to(self.directory))} for path, file in files]


def _label(value: Any, names: Sequence[str] | None) -> Any:
    if names is None or value is None:
        return value
    return names[value] if 0 <= value < len(names) else None


def _undecoded(one: Any, columns: Mapping[str, Any]) -> Any:
    from datasets import Image

    column = columns["image"]
    named = [columns[ours] for ours in ("image", "key", "split") if ours in columns]
    one = one.select_columns(list(dict.fromkeys([*named, *columns["caption"]])))
    return one.cast_column(column, Image(decode=False)) if isinstance(one.features[column], Image) else one


def _opened(source: str, directory: Path | None, config: str | None) -> dict[str, Any]:
    """The splits of a set by name, memory-mapped. Raises UserError where it cannot be opened."""
    from datasets import load_dataset

    saved = directory is not None and any(
        (directory / name).is_file() for name in ("dataset_dict.json", "state.json")
    )
    if directory is not None and not saved:
        check_declared(directory)
    try:
        with no_bars():
            found = _saved(directory) if saved else load_dataset(source, config)
    except UserError:
        raise
    except Exception as error:  # datasets raises many kinds
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"the set {source} cannot be opened: {why}") from error
    if not found:
        raise UserError(f"the set {source} has no rows: give one that has")
    return dict(found) if isinstance(found, dict) else {"train": found}


def _saved(directory: Path) -> Any:
    """A set written by ``save_to_disk``, without splits that have no rows: `datasets` fails to open those."""
    from datasets import load_from_disk

    listed = directory / "dataset_dict.json"
    if not listed.is_file():
        check_saved(directory)
        return load_from_disk(os.fspath(directory))
    names = json.loads(listed.read_text())["splits"]
    for name in names:
        if not is_plain(name):
            raise UserError(f"{listed} names {name!r}, which is no folder in {directory}: mend it")
        check_saved(directory / name)
    states = {name: json.loads((directory / name / "state.json").read_text()) for name in names}
    return {
        name: load_from_disk(os.fspath(directory / name))
        for name, state in states.items()
        if state["_data_files"]
    }


def _origin(opened: dict[str, Any]) -> dict:
    """What a set says of itself, for the card."""
    info = next(iter(opened.values())).info
    sums = {url: dict(entry) for url, entry in (info.download_checksums or {}).items()}
    return {
        "home": info.homepage or "",
        "licence": info.license or "as the set's own page says",
        "downloads": sums,
        "fingerprints": {name: one._fingerprint for name, one in opened.items()},
    }
