"""What builders of sets that others published share: their files, captions, splits, and the card."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pixelbert_fast.data.blocks import Dropped
from pixelbert_fast.data.image_files import ImageFolder, Unusable
from pixelbert_fast.data.records import SPLITS
from pixelbert_fast.errors import UserError, nearest


class AnnotationFile:
    """A file as it was distributed: `path`, `name` and checksum. Raises UserError where it is missing."""

    def __init__(self, set_name: str, path: Path | str):
        self.path = Path(path).expanduser()
        self.name = self.path.name
        if self.path.is_dir():
            raise UserError(f"{set_name}: {path} is a folder, give the annotation file in it")
        if self.path.exists() and not self.path.is_file():
            raise UserError(
                f"{set_name}: {path} is no ordinary file, which is read more than once: save it first"
            )
        try:
            with open(self.path, "rb"):
                pass
        except FileNotFoundError:
            raise UserError(f"{set_name}: there is no annotation file {path}") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(f"{set_name}: the annotation file {path} cannot be read ({why})") from error

    @cached_property
    def sha256(self) -> str:
        """Raises UserError where the file cannot be read."""
        try:
            with open(self.path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def entry(self) -> dict:
        """What a card says of it."""
        return {"file": self.name, "bytes": self.path.stat().st_size, "sha256": self.sha256}


class OfficialSet:
    """Base of builders of published sets: a folder of images and annotation files.

    A subclass has `name`, `home` (the set's own page), `licence` (a note, with whose it is), `revision`
    (raised whenever the same files give other records), `plan` and `render`, and may extend `settings`.
    """

    name: str
    home: str
    licence: str
    revision = 1

    def __init__(self, images: Path | str, annotations: Path | str | Sequence[Path | str]):
        self.folder = ImageFolder(self.name, images)
        given = [annotations] if isinstance(annotations, str | os.PathLike) else list(annotations)
        self.files = [AnnotationFile(self.name, path) for path in given]
        if not self.files:
            raise UserError(f"{self.name} needs its annotation file: give --annotations FILE")

    def settings(self) -> dict:
        """The options beside the files, JSON-able."""
        return {}

    def options(self) -> dict:
        """The set's identity: the folder of images, and each annotation file by its checksum."""
        return {
            "images": str(self.folder.root),
            "annotations": [f"{file.name} {file.sha256[:16]}" for file in self.files],
            **self.settings(),
            "revision": self.revision,
        }

    def card(
        self,
        *,
        counted: Mapping[str, int] | None = None,
        published: Mapping[str, int] | None = None,
        dropped: Iterable[Dropped] = (),
    ) -> dict:
        """The card: provenance, checksums, and numbers.

        Args:
            counted: what was found in the files, {"questions in train": 443757, ...}.
            published: the published numbers of any of these, or of "images in SPLIT", which the finished set
                is counted for.
            dropped: what the plan left out.
        """
        return {
            "home": self.home,
            "licence": self.licence,
            "annotations": [file.entry() for file in self.files],
            "counted": dict(counted or {}),
            "published": dict(published or {}),
            "dropped": [{"key": storable(one.key), "why": one.why} for one in dropped],
        }

    def record(self, key: str, path: str, **columns: Any) -> dict | Dropped:
        """The record of the image at `path` below the folder with further columns, or why there is none."""
        try:
            return {"key": storable(key), **self.folder.read(path), **columns}
        except Unusable as why:
            return Dropped(storable(key), str(why))

    def check_some(self, splits: Mapping[str, Sequence], dropped: Sequence[Dropped]) -> None:
        """Raises UserError where the annotation files leave nothing to build."""
        if any(len(specs) for specs in splits.values()):
            return
        if not dropped:
            raise UserError(f"{self.name}: {self.files[0].path} lists no image")
        raise UserError(
            f"{self.name}: none of the {len(dropped):,} images in {self.files[0].path} can be used, "
            f"the first ({dropped[0].key}) for: {dropped[0].why}"
        )

    def notes(self) -> list[str]:
        """What is about to be read: before the first bar appears, a large file takes its time."""
        sizes = [f"{file.name} ({file.path.stat().st_size / 1e6:,.1f} MB)" for file in self.files]
        return [f"reading {', '.join(sizes)}"]

    def check_layout(self, paths: Sequence[str], hint: str) -> None:
        """Raises UserError where none of these first paths of an annotation file is below the folder."""
        if paths and not any(os.path.lexists(self.folder.root / path) for path in paths):
            raise UserError(
                f"{self.name}: none of the images that {self.files[0].name} lists first is below "
                f"{self.folder.root}, {paths[0]} for example: {hint}"
            )


def coco_paths(path: str, number: int) -> list[str]:
    """Where an image of COCO's train2014 or val2014 may lie: at `path`, or in train2017 or val2017.

    The folders of 2017 hold the pictures of those of 2014 under shorter names, divided otherwise.
    """
    return [path, *(f"{folder}/{number:012d}.jpg" for folder in ("train2017", "val2017"))]


class Keys:
    """The keys of a set, each once. `take` says whether a key is new; numbers cost the least memory."""

    def __init__(self) -> None:
        self._taken: set = set()

    def take(self, key: int | str) -> bool:
        if key in self._taken:
            return False
        self._taken.add(key)
        return True


CHANGED = "annotation file changed while the set was built"
DUPLICATE = "listed before under the same key"
NO_CAPTION = "no caption"


def clean(text: Any) -> str:
    """A text as one line: runs of space, line ends included, become one space; empty for what is no text."""
    if not isinstance(text, str):
        return ""
    return " ".join(storable(text).split())


def storable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can name and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def clean_captions(texts: Iterable[Any], counted: Counter | None = None) -> list[str]:
    """The texts that say something, as lines. `counted`, if given, counts "captions" and "empty captions"."""
    lines = [clean(text) for text in texts]
    kept = [line for line in lines if line]
    if counted is not None:
        counted["captions"] += len(kept)
        counted["empty captions"] += len(lines) - len(kept)
    return kept


def named_values(
    option: str, given: Sequence[str] | Mapping[str, Any], known: Sequence[str]
) -> dict[str, Any]:
    """NAME=VALUE words of a repeated option as a dict; a dict is checked likewise.

    Raises UserError for a word without a name or value, and for a name given twice or not among `known`.
    """
    if isinstance(given, Mapping):
        pairs = [(name, "" if value is None else str(value)) for name, value in given.items()]
    else:
        words = [given] if isinstance(given, str) else given
        pairs = [
            (name.strip(), value.strip()) for name, _, value in (str(word).partition("=") for word in words)
        ]
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in known:
            close = nearest(str(name), known)
            hint = f"did you mean {close!r}?" if close else f"known are: {', '.join(known)}"
            raise UserError(f"--{option} takes NAME=VALUE and has no {name!r}; {hint}")
        if not value:
            raise UserError(f"--{option} {name} is given no value: write --{option} {name}=VALUE")
        if name in found:
            raise UserError(f"--{option} {name} is given twice")
        found[name] = value
    return found


def columns_named(
    where: Any, column: Mapping[str, str], there: Sequence[str], *, optional: Sequence[str]
) -> dict[str, Any]:
    """Our columns image and caption, and the `optional` ones, by the names they have `there`.

    "caption" has a list of names, since --column caption=a,b may name several; an optional column is left out
    where it has its own name and is not there. Raises UserError naming a column that is missing.
    """
    found: dict[str, Any] = {}
    for ours in ("image", "caption", *optional):
        theirs = column.get(ours, ours)
        several = (
            [theirs] if theirs in there else [*dict.fromkeys(name.strip() for name in theirs.split(","))]
        )
        missing = [name for name in several if name not in there]
        if missing and ours in optional and ours not in column:
            continue
        if missing or (len(several) > 1 and ours != "caption"):
            raise UserError(
                f"{where} has no column {(missing[0] if missing else theirs)!r}, it has: {', '.join(there)}; "
                f"say which one is meant by --column {ours}=NAME"
            )
        found[ours] = several if ours == "caption" else theirs
    return found


def split_shares(given: Sequence[str] | Mapping[str, Any]) -> dict[str, float]:
    """Shares of val and test, ["val=0.05"] or {"val": 0.05}; the rest is train.

    Raises UserError for a share that is no number, out of range, or where nothing is left to train on.
    """
    shares = {}
    for split, value in named_values("share", given, SPLITS[1:]).items():
        try:
            shares[split] = float(value)
        except (TypeError, ValueError):
            raise UserError(f"--share {split} must be a number from 0 to 1, not {value!r}") from None
        if not 0 <= shares[split] <= 1:
            raise UserError(f"--share {split} must be a number from 0 to 1, not {value!r}")
    if sum(shares.values()) >= 1:
        raise UserError("--share leaves nothing to train on: the shares must add up to less than 1")
    return {split: shares[split] for split in SPLITS if split in shares}


def split_of(key: str, shares: Mapping[str, float]) -> str:
    """The split of a key by a hash of it, so that it depends neither on the order nor on the other keys."""
    place = int.from_bytes(hashlib.sha256(key.encode("utf-8", "replace")).digest()[:8]) / 2**64
    for split, share in shares.items():
        if place < share:
            return split
        place -= share
    return "train"


_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_named(name: Any) -> str | None:
    """The split that others call by this name; None where it is none. COCO's restval is trained on."""
    return _SPLIT_NAMES.get(name.strip().lower()) if isinstance(name, str) else None
