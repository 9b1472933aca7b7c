"""The builders of `tuxpaint`, `tuxpaint-pairs` and `tuxpaint-objects`."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from random import Random

from pixelbert_fast.data.build import Dropped, Plan
from pixelbert_fast.data.options import check_picture_options
from pixelbert_fast.data.records import NO_RETRIEVAL_CAPTION
from pixelbert_fast.data.tuxpaint import ground, sentences
from pixelbert_fast.data.tuxpaint.collection import HOW_TO_GET_IT, Collection, Stamp, read_collection
from pixelbert_fast.data.tuxpaint.compose import Picture, clashes, draw, encode, extent, place, placed
from pixelbert_fast.data.tuxpaint.cutouts import BadCutout
from pixelbert_fast.data.tuxpaint.pairs import state_pairs
from pixelbert_fast.data.tuxpaint.retrieval import SingledOut
from pixelbert_fast.errors import UserError

# Raised whenever the same options give other records, so that an older set is not taken for a current one.
REVISION = 1
LEAST_IMAGES = 20
# One in so many objects of each category is kept for testing.
HELD_OUT_SHARE = 0.2
# Fewer objects than this in a split cannot fill a scene three at a time without repeating it.
LEAST_OBJECTS = 4
# How often a scene has one, two and three cut-outs.
NUMBER_WEIGHTS = (0.15, 0.45, 0.40)
# New scenes tried before giving up on finding one that a caption singles out in its split.
ATTEMPTS = 400

# The longest side of the one cut-out of `tuxpaint-objects` as a share of the image's.
OBJECT_SHARES = (0.60, 1.0)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def held_out(collection: Collection) -> set[str]:
    """The object classes kept for testing: HELD_OUT_SHARE of every category.

    It depends on the collection alone and on no seed, so that a backbone taught with `tuxpaint-objects` has
    seen no test object of any `tuxpaint` set.
    """
    by_category: dict[str, list[str]] = defaultdict(list)
    for name, stamps in collection.objects.items():
        by_category[stamps[0].category].append(name)
    chosen: set[str] = set()
    for names in by_category.values():
        names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        chosen.update(names[: round(HELD_OUT_SHARE * len(names))])
    return chosen


class _Composed:
    """What the two builders share: options, the collection, and the random streams."""

    name: str
    streams: str | None = None
    """The name of another set whose random streams this one has."""
    provenance = (
        "composed by pixelbert_fast from photographs of Tux Paint's stamp collection (tuxpaint-stamps)"
    )
    licence = "GPL-2.0-only, as the photographs"

    def __init__(self, source, images: int, seed: int, size: int, quality: int):
        check_picture_options(
            self.name, least_images=LEAST_IMAGES, images=images, seed=seed, size=size, quality=quality
        )
        if source is None:
            raise UserError(
                f"{self.name} is made from Tux Paint's stamps and needs their folder: {HOW_TO_GET_IT}"
            )
        self.images, self.seed, self.size, self.quality = images, seed, size, quality
        self.collection = read_collection(source)
        known, kept = self.known, self.kept_for_test
        if min(len(known), len(kept)) < LEAST_OBJECTS:
            raise UserError(
                f"{self.collection.root} has only {len(known) + len(kept)} objects that can be used, "
                f"too few to train and to test with: {HOW_TO_GET_IT}"
            )

    def options(self) -> dict:
        return {
            "collection": self.collection.fingerprint,
            "images": self.images,
            "seed": self.seed,
            "size": self.size,
            "quality": self.quality,
            "revision": REVISION,
        }

    @cached_property
    def known(self) -> list[list[Stamp]]:
        """The photographs of each training object."""
        test = held_out(self.collection)
        return [stamps for name, stamps in self.collection.objects.items() if name not in test]

    @cached_property
    def kept_for_test(self) -> list[list[Stamp]]:
        """The photographs of each test object."""
        test = held_out(self.collection)
        return [stamps for name, stamps in self.collection.objects.items() if name in test]

    def notes(self) -> list[str]:
        """What was kept of the collection, in lines to print; the set's card says why the rest was not."""
        collection = self.collection
        pictures = len(collection.stamps) + len(collection.dropped)
        return [
            f"kept {len(collection.stamps)} photographs of {len(collection.objects)} objects out of "
            f"{pictures} pictures; {len(self.known)} objects are for training and {len(self.kept_for_test)} "
            "for testing"
        ]

    def stream(self, *parts: object) -> Random:
        """A random stream of its own for each purpose; Python seeds it by SHA-512 of the text."""
        return Random("/".join(str(part) for part in (self.streams or self.name, self.seed, *parts)))

    def record(self, key: str, picture: Picture) -> dict | Dropped:
        try:
            image = draw(picture, str(self.collection.root))
        except (BadCutout, OSError) as error:
            return Dropped(key, f"a stamp changed while the set was built: {error}")
        return {
            "key": key,
            "image": encode(image, self.quality),
            "height": self.size,
            "width": self.size,
            "scene": _compact(picture.scene()),
        }

    def card(self, groups: list[list[Stamp]]) -> dict:
        """The card of a set whose splits use these objects."""
        collection = self.collection
        names = sorted(stamps[0].name for stamps in groups)
        return {
            "attributes": {
                "object": names,
                "category": sorted({stamp.category for stamps in groups for stamp in stamps}),
            },
            "word_categories": sentences.word_categories(names),
            "held_out": sorted(held_out(collection)),
            "collection": {
                "photographs": len(collection.stamps),
                "objects": len(collection.objects),
                "training_objects": len(self.known),
                "test_objects": len(self.kept_for_test),
                "dropped_for": collection.why_counts(),
            },
            "dropped": [{"key": path, "why": why} for path, why in collection.dropped],
            "licence": self.licence,
            "provenance": self.provenance,
        }


class Tuxpaint(_Composed):
    """Scenes of 1 to 3 photographed objects with five captions each.

    train and val compose training objects, val in scenes of its own; test composes objects that are in
    neither.

    Args:
        source: the folder of the stamps, or one they lie below (as of an unpacked Debian package).
        images: in all splits together, at least 20.
        seed: of everything but which objects are for testing.
        size: side of the square images in pixels.
        quality: of the JPEG files, 1 to 100.

    Raises UserError for a folder without usable stamps and for an option out of its range.
    """

    name = "tuxpaint"

    def __init__(self, source=None, images: int = 10_000, seed: int = 0, size: int = 128, quality: int = 90):
        super().__init__(source, images, seed, size, quality)

    def plan(self) -> Plan:
        """Which scenes there are: the fullest caption of each is true of no other scene of its split."""
        tenth = self.images // 10
        sizes = {"train": self.images - 2 * tenth, "val": tenth, "test": tenth}
        splits = {split: list(self._specs(split, number)) for split, number in sizes.items()}
        card = {
            "captions_per_image": sentences.CAPTIONS_PER_IMAGE,
            **self.card([*self.known, *self.kept_for_test]),
            "splits": {
                "train": "training objects",
                "val": "new scenes of training objects",
                "test": "objects that are in no training or validation image",
            },
        }
        return Plan(splits, card)

    def _specs(self, split: str, number: int) -> Iterator[tuple[str, int, int]]:
        singled_out = SingledOut()
        for index in range(number):
            for attempt in range(ATTEMPTS):
                picture = self._picture(split, index, attempt)
                if picture is None:
                    continue
                _, facts, fullest = self._described(split, index, picture)
                if singled_out.add(picture.scene(), facts[fullest]):
                    yield split, index, attempt
                    break
            else:
                raise UserError(
                    f"{self.name}: {number} scenes for {split} are more than the objects give without "
                    "two of the same caption: ask for fewer images"
                )

    def _picture(self, split: str, index: int, attempt: int) -> Picture | None:
        """A scene, or None when the objects drawn do not go together."""
        rng = self.stream(split, index, attempt)
        groups = self.kept_for_test if split == "test" else self.known
        number = rng.choices((1, 2, 3), NUMBER_WEIGHTS)[0]
        stamps = [rng.choice(group) for group in rng.sample(groups, number)]
        if clashes(stamps):
            return None
        things = place(rng, stamps, self.size)
        return None if things is None else Picture(self.size, things, ground.choose_ground(rng))

    def _described(self, split: str, index: int, picture: Picture) -> tuple[list[str], list[dict], int]:
        return sentences.describe(self.stream(split, index, "words"), picture)

    def render(self, spec: tuple[str, int, int]) -> dict | Dropped:
        """The record of one scene, from its place in the plan."""
        split, index, attempt = spec
        picture = self._picture(split, index, attempt)
        texts, facts, fullest = self._described(split, index, picture)
        record = self.record(f"{split}-{index:06d}", picture)
        if isinstance(record, Dropped):
            return record
        return record | {
            "captions": texts,
            "facts": [_compact(fact) for fact in facts],
            "retrieval_caption": fullest,
        }


class TuxpaintPairs(Tuxpaint):
    """The images and captions of `tuxpaint` by the same options, with statements about pairs of them.

    A set of its own, so that sets of `tuxpaint` that were built before there were statements stay valid.
    Args: as of `Tuxpaint`.
    """

    name = "tuxpaint-pairs"
    streams = Tuxpaint.name

    def plan(self) -> Plan:
        """As of `tuxpaint`; a statement's images are of its own split."""
        plan = super().plan()
        plan.pairs = {}
        for split, specs in plan.splits.items():
            scenes, told = [], []
            for one, index, attempt in specs:
                picture = self._picture(one, index, attempt)
                texts, facts, _ = self._described(one, index, picture)
                scenes.append(picture.scene())
                told.append(list(zip(texts, facts, strict=True)))
            plan.pairs[split] = state_pairs(self.stream(split, "pairs"), scenes, told)
        return plan


class TuxpaintObjects(_Composed):
    """One training object an image, in many sizes, places and lights, to teach a backbone their names.

    There is no test split: test objects are not shown. Args: as of `Tuxpaint`.
    """

    name = "tuxpaint-objects"

    def __init__(self, source=None, images: int = 20_000, seed: int = 0, size: int = 64, quality: int = 90):
        super().__init__(source, images, seed, size, quality)

    def plan(self) -> Plan:
        """As many images of each object as of any other, give or take one, in random order."""
        tenth = self.images // 10
        splits = {}
        for split, number in {"train": self.images - tenth, "val": tenth}.items():
            order = [index % len(self.known) for index in range(number)]
            self.stream(split, "order").shuffle(order)
            splits[split] = [(split, index, which) for index, which in enumerate(order)]
        return Plan(splits, {"captions_per_image": 1, **self.card(self.known)})

    def render(self, spec: tuple[str, int, int]) -> dict | Dropped:
        """The record of one image: its caption is the object's name, `retrieval_caption` is none."""
        split, index, which = spec
        rng = self.stream(split, index)
        stamp = rng.choice(self.known[which])
        width, height = extent(stamp, rng.uniform(*OBJECT_SHARES) * self.size)
        x, y = rng.randint(0, self.size - width), rng.randint(0, self.size - height)
        thing = placed(rng, stamp, (x, y, x + width, y + height))
        record = self.record(f"{split}-{index:06d}", Picture(self.size, (thing,), ground.choose_ground(rng)))
        if isinstance(record, Dropped):
            return record
        return record | {
            "captions": [stamp.phrase],
            "facts": [_compact({"exist": [sentences.name_of(stamp)]})],
            "retrieval_caption": NO_RETRIEVAL_CAPTION,
        }
