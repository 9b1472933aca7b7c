"""Tux Paint's stamp collection on disk: which pictures are captioned photographs, and why the others go.

A stamp is ``CATEGORY/.../NAME.png`` with ``NAME.txt`` beside it, whose first line is the English caption
and whose later lines are ``LANG.utf8=`` translations, and sometimes ``NAME.dat`` with options
(``nomirror``: never flipped).
"""

import fnmatch
import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pixelbert_fast.data.tuxpaint import captions
from pixelbert_fast.data.tuxpaint.cutouts import BadCutout, Cutout, read_cutout
from pixelbert_fast.errors import UserError

HOW_TO_GET_IT = (
    "get the collection with `apt-get download tuxpaint-stamps-default` and "
    "`dpkg-deb -x tuxpaint-stamps-default_*.deb DIR`, then give --source DIR"
)
# Where the stamps lie below the folder a user may name: as packaged, as installed, as unpacked from upstream.
_BELOW = ("usr/share/tuxpaint/stamps", "share/tuxpaint/stamps", "tuxpaint/stamps", "stamps", "")
# Two of these folders tell that a folder is the collection and not, say, one category of it.
_CATEGORIES = ("animals", "food", "household", "plants", "sports", "symbols", "vehicles")

# What the folders tell: fnmatch patterns on the path below the stamps folder, of which the first that fits
# counts.
_NOT_PHOTOGRAPHS = (
    ("symbols/*", "symbol, letter or coin"),
    ("*/cartoon/*", "drawing"),
    ("clothes/hats/*", "drawing"),
    ("people/body_parts/*", "drawing"),
    ("seasonal/easter/*", "drawing"),
    ("seasonal/hanukkah/*", "drawing"),
    ("seasonal/newyears/*", "drawing"),
    ("seasonal/halloween/*", "drawing, or one of ten gravestones under six names"),
    ("town/flags/*", "drawing"),
    ("town/roadsigns/*", "road sign"),
)
# Drawings in folders of photographs, and pictures that are not what their caption names; seen by eye.
_BY_NAME = (
    ("animals/mammals/hedgehog.png", "drawing"),
    ("clothes/button.png", "drawing"),
    ("food/pizza.png", "drawing"),
    ("household/arttools/highlighter.png", "drawing"),
    ("household/dishes/glass.png", "drawing"),
    ("household/dishes/mug.png", "drawing"),
    ("medical/tooth.png", "drawing"),
    ("plants/lavender.png", "too faint to be seen in a scene"),
    ("plants/trees/rambutan.png", "caption is a joke"),
    ("seasonal/christmas/bow.png", "drawing"),
    ("seasonal/christmas/candy_cane.png", "drawing"),
    ("seasonal/christmas/hard_candy.png", "drawing"),
    ("seasonal/christmas/lamp.png", "drawing"),
    ("seasonal/christmas/Santa.png", "drawing"),
    ("seasonal/christmas/santahat.png", "drawing"),
    ("seasonal/christmas/star.png", "drawing"),
    ("seasonal/christmas/stocking.png", "drawing"),
    ("seasonal/christmas/tree.png", "drawing"),
    ("seasonal/christmas/xmas_tp_bulb.png", "drawing"),
    ("town/monuments/inukshuk-outline.png", "drawing"),
    ("vehicles/emergency/sedan_police.png", "overlay for another stamp"),
)
# Photographs with lettering whose options do not say that they must not be flipped.
_LETTERED = ("sports/australian_rules_football.png",)
# Options of a .dat file that only drawings have: they ask for flat areas to be filled with a colour.
_DRAWING_OPTIONS = ("colorable", "tinter=vector")

# Folders whose pictures can all be called by one noun, whatever else their captions say.
_CONCEPT_OF_FOLDER = {
    "animals/fish": "fish",
    "plants/flowers": "flower",
    "plants/mushrooms": "mushroom",
    "plants/trees": "tree",
}
# The category is the top folder, with these exceptions: folders of one kind of thing inside another ...
_CATEGORY_OF_FOLDER = {
    "hobbies/music": "music",
    "military/vehicles": "vehicles",
    "military": "people",
    "plants/flowers": "flowers",
}
# ... and parts, which are not what the folder says.
_CATEGORY_OF_CONCEPT = {"wheel": "parts"}

# Categories that captions count ("two animals"): each member is one, and nothing else in the collection is.
CATEGORY_WORDS = {
    "animals": ("animal", "animals"),
    "flowers": ("flower", "flowers"),
    "music": ("musical instrument", "musical instruments"),
    "vehicles": ("vehicle", "vehicles"),
}

_TRANSLATION = re.compile(r"^[a-z]{2,3}(_[A-Z]{2})?(@\w+)?\.utf8=")


@dataclass(frozen=True)
class Stamp:
    """One photograph: `path` below the stamps folder, `phrase` with article, `mirror`: may be flipped."""

    path: str
    phrase: str
    concept: str
    category: str
    cutout: Cutout
    mirror: bool

    @property
    def name(self) -> str:
        """The object class: the phrase without its article."""
        return captions.without_article(self.phrase)


@dataclass(frozen=True)
class Collection:
    """What was kept of a stamps folder, in the order of the paths, and (path, why) of what was not."""

    root: Path
    stamps: tuple[Stamp, ...]
    dropped: tuple[tuple[str, str], ...]
    fingerprint: str

    @cached_property
    def objects(self) -> dict[str, list[Stamp]]:
        """The object classes, sorted by name, each with its photographs."""
        found = defaultdict(list)
        for stamp in self.stamps:
            found[stamp.name].append(stamp)
        return dict(sorted(found.items()))

    def why_counts(self) -> dict[str, int]:
        """How many pictures were dropped for each reason, most frequent first."""
        counts: dict[str, int] = defaultdict(int)
        for _, why in self.dropped:
            counts[why] += 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


class _Dropped(ValueError):
    """The picture cannot be used; the message is the reason."""


def find_stamps(source: Path | str) -> Path:
    """The stamps folder at or below `source`. Raises UserError when there is none."""
    source = Path(source).expanduser()
    if not source.exists():
        raise UserError(f"there is no folder {source}: {HOW_TO_GET_IT}")
    if not source.is_dir():
        raise UserError(f"{source} is a file, not the folder of Tux Paint's stamps: {HOW_TO_GET_IT}")
    for below in _BELOW:
        folder = source / below
        if sum((folder / category).is_dir() for category in _CATEGORIES) >= 2 and any(
            folder.glob("*/**/*.png")
        ):
            return folder
    raise UserError(
        f"{source} holds no stamps (animals/.../NAME.png, plants/.../NAME.png, ...): {HOW_TO_GET_IT}"
    )


def read_collection(source: Path | str) -> Collection:
    """Read every stamp at or below `source`, decoding each picture once so that a broken one is found here.

    Raises UserError when the folder is missing, holds no stamps or none that can be used.
    """
    root = find_stamps(source)
    stamps, dropped, seen = [], [], set()
    digest = hashlib.sha256()
    pictures = sorted(
        path for kind in ("png", "svg") for path in root.glob(f"*/**/*.{kind}") if path.is_file()
    )
    for picture in pictures:
        path = picture.relative_to(root).as_posix()
        try:
            stamp, content = _read_stamp(root, path)
            if content in seen:
                raise _Dropped("same picture as another stamp")
        except (_Dropped, BadCutout, captions.NotANounPhrase) as why:
            dropped.append((path, str(why)))
            continue
        seen.add(content)
        stamps.append(stamp)
        digest.update(f"{path}\n{stamp.phrase}\n{content}\n".encode())
    stamps, doubtful = _without_doubtful(stamps)
    if not stamps:
        raise UserError(
            f"none of the {len(pictures)} pictures below {root} is a captioned photograph that can be used "
            f"(the first: {dropped[0][0]}, {dropped[0][1]}): {HOW_TO_GET_IT}"
        )
    return Collection(root, tuple(stamps), tuple(sorted(dropped + doubtful)), digest.hexdigest()[:16])


def _read_stamp(root: Path, path: str) -> tuple[Stamp, str]:
    """The stamp and the hash of its picture's bytes. Raises one of the three reasons to drop it."""
    if path.endswith(".svg"):
        raise _Dropped("drawing (SVG)")
    file = root / path
    text = file.with_suffix(".txt")
    # Before the folders' rules, so that a mirrored drawing is counted as what it is.
    if file.stem.endswith("_mirror") and not text.exists():
        raise _Dropped("mirror image of another stamp")
    for pattern, why in (*_NOT_PHOTOGRAPHS, *_BY_NAME):
        if fnmatch.fnmatchcase(path, pattern):
            raise _Dropped(why)
    options = _options(file.with_suffix(".dat"))
    if options & set(_DRAWING_OPTIONS):
        raise _Dropped("drawing")
    phrase = captions.noun_phrase(_english_caption(text))
    content = _read(file)
    return Stamp(
        path=path,
        phrase=phrase,
        concept=_of_folder(path, _CONCEPT_OF_FOLDER) or captions.concept(phrase),
        category=_category(path, captions.concept(phrase)),
        cutout=read_cutout(content),
        # A stamp that ships its own mirror image shows text, which a flip would spoil.
        mirror="nomirror" not in options
        and path not in _LETTERED
        and not file.with_name(f"{file.stem}_mirror.png").exists(),
    ), hashlib.sha256(content).hexdigest()


def _without_doubtful(stamps: list[Stamp]) -> tuple[list[Stamp], list[tuple[str, str]]]:
    """Drop what might be called one of a counted category without being in it (a rubber duck: an animal?)."""
    counted: dict[str, str] = {s.concept: s.category for s in stamps if s.category in CATEGORY_WORDS}
    kept, dropped = [], []
    for stamp in stamps:
        if counted.get(stamp.concept, stamp.category) == stamp.category:
            kept.append(stamp)
        else:
            dropped.append((stamp.path, "has the name of something of another category"))
    return kept, dropped


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _Dropped("picture cannot be read") from error


def _options(file: Path) -> set[str]:
    try:
        return set(file.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return set()


def _english_caption(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise _Dropped("no caption file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _Dropped("caption cannot be read") from error
    first = lines[0].strip() if lines else ""
    if not first or _TRANSLATION.match(first):
        raise _Dropped("no English caption")
    return first


def _of_folder(path: str, table: dict[str, str]) -> str | None:
    for folder, value in table.items():
        if path.startswith(folder + "/"):
            return value
    return None


def _category(path: str, concept: str) -> str:
    return _CATEGORY_OF_CONCEPT.get(concept) or _of_folder(path, _CATEGORY_OF_FOLDER) or path.split("/")[0]
