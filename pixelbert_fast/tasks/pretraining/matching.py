"""Which captions an image is shown with in an epoch: some of its own, and as many that are not true of it.

Image-text matching is only a question about the image if the text alone gives nothing away. So the captions
of mismatched pairs are a permutation of those of the matched pairs of the same epoch: each text is as often
true as it is false, and a model that sees no pixels stays at chance.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixelbert_fast.data.captions import CaptionTexts
from pixelbert_fast.data.sampler import random_stream
from pixelbert_fast.errors import UserError

# Random partners tried for one misplaced caption before every place is searched in turn, and how many are
# then.
_TRIES = 60
_SEARCHED = 5000

_OWN, _FOREIGN, _REPAIR = 11, 12, 13


@dataclass(frozen=True)
class EpochPlan:
    """The captions of one epoch, for `N` images.

    matched: int64 `[N, m]`, numbers of the image's own captions; -1 where the pair was left out.
    mismatched: int64 `[N, k, 2]`, (row of another image, number of that image's caption); -1 where left out.
    dropped: how many mismatched pairs were left out because no caption that is false of the image was found.
    """

    matched: np.ndarray
    mismatched: np.ndarray
    dropped: int


def share_out(captions_per_image: int, mismatched_share: float) -> tuple[int, int]:
    """How many of an image's captions are matched and how many not; a half is rounded to the even number.

    Raises UserError when that leaves no matched caption, or no mismatched one though some were asked for.
    """
    if captions_per_image < 1 or not 0 <= mismatched_share < 1:
        raise UserError(
            "captions_per_image must be at least 1 and mismatched_share at least 0 and below 1, but they are "
            f"{captions_per_image} and {mismatched_share}"
        )
    mismatched = round(captions_per_image * mismatched_share)
    matched = captions_per_image - mismatched
    if not matched or (mismatched_share and not mismatched):
        raise UserError(
            f"a mismatched_share of {mismatched_share} cannot be made of {captions_per_image} captions an "
            "image; raise data.captions_per_image"
        )
    return matched, mismatched


def plan_epoch(
    captions: Sequence[Sequence[str]],
    seed: int,
    epoch: int,
    captions_per_image: int,
    mismatched_share: float,
    facts: Sequence[Sequence[str]] | None = None,
    scenes: Sequence[str] | None = None,
) -> EpochPlan:
    """The plan of one epoch; `Matcher(captions, facts, scenes).plan(...)` for more than one."""
    return Matcher(captions, facts, scenes).plan(seed, epoch, captions_per_image, mismatched_share)


class Matcher:
    """Plans epochs over the images of a split; a pure function of its arguments and of the split.

    captions: the captions of each image. facts, scenes: JSON text, the logical form of each caption and the
    content of each image, where the set knows them; then a mismatched caption is verified to be false of
    the image.

    Raises UserError for an image without captions, or facts that do not stand beside captions one to one.
    """

    def __init__(
        self,
        captions: Sequence[Sequence[str]] | CaptionTexts,
        facts: Sequence[Sequence[str]] | None = None,
        scenes: Sequence[str] | None = None,
    ):
        captions = CaptionTexts.of(captions)
        self._counts = captions.counts
        if len(self._counts) and self._counts.min() < 1:
            raise UserError(
                f"image {int(self._counts.argmin())} of the split has no caption; rebuild the set"
            )
        # Texts are compared by number from here on; `_texts[start of an image + number of its caption]`.
        self._texts, self._starts, self._distinct = captions.text, captions.starts, len(captions.distinct)
        # Which texts are whose, as one sorted number for each pair: images have 1 caption or hundreds.
        owner = np.repeat(np.arange(len(self._counts)), self._counts)
        self._own = np.unique(owner * self._distinct + self._texts)
        self._truth = _Truth.read(self._counts, facts, scenes)

    @property
    def counts(self) -> np.ndarray:
        """How many captions each image has, int64 `[N]`."""
        return self._counts

    def plan(self, seed: int, epoch: int, captions_per_image: int, mismatched_share: float) -> EpochPlan:
        """The plan of `epoch`. Raises UserError as `share_out`, and where a single image has no others."""
        m, k = share_out(captions_per_image, mismatched_share)
        matched = self._own_captions(seed, epoch, m)
        return self.mismatched(np.arange(len(self._counts)), matched, k, seed, epoch)

    def mismatched(self, rows: np.ndarray, matched: np.ndarray, k: int, seed: int, epoch: int) -> EpochPlan:
        """The plan that shows the images `rows` `[V]` with these matched captions and `k` others each.

        matched: int64 `[V, m]`, -1 where a pair is left out; where k is m, a mismatched one is left out as
        well, so that each text stays as often false as true.

        Raises UserError where there is no second image.
        """
        shown, m = matched.shape
        mismatched = np.full((shown * k, 2), -1, dtype=np.int64)
        there = matched.reshape(-1) >= 0
        if not k or not there.any():
            return EpochPlan(matched, mismatched.reshape(shown, k, 2), 0)
        if len(self._counts) < 2:
            raise UserError("mismatched captions need a split of at least 2 images")
        entries = np.flatnonzero(there)
        owner, number = rows[entries // m], matched.reshape(-1)[entries]
        places = entries if m == k else np.arange(shown * k)
        source = self._shuffled(len(owner), len(places), seed, epoch)
        image = rows[places // k]
        captions = self._starts[owner] + number
        unplaced = self._repair(image, source, self._texts[captions], captions, seed, epoch)

        mismatched[places] = np.stack([owner[source], number[source]], axis=1)
        mismatched[places[unplaced]] = -1
        if m == k and len(unplaced):
            # A text that is false of no image left would now be true more often than false: it leaves both
            # sides.
            matched = matched.reshape(-1).copy()
            matched[entries[source[unplaced]]] = -1
            matched = matched.reshape(shown, m)
        return EpochPlan(matched, mismatched.reshape(shown, k, 2), len(unplaced))

    def fits(self, row: int, number: int, other: int) -> bool:
        """Whether a caption of image `row` would be right for image `other` too, as far as the set knows."""
        caption = self._starts[row] + number
        return self._has(other, self._texts[caption]) or (
            self._truth is not None and self._truth.holds(caption, other)
        )

    def _has(self, row: np.ndarray | int, text: np.ndarray | int) -> np.ndarray | bool:
        """Whether a text (by number) is one of an image's own; of many at once, or of one."""
        pair = row * self._distinct + text
        place = np.searchsorted(self._own, pair)
        if isinstance(place, np.ndarray):
            return self._own[np.minimum(place, len(self._own) - 1)] == pair
        return bool(place < len(self._own) and self._own[place] == pair)

    def _own_captions(self, seed: int, epoch: int, m: int) -> np.ndarray:
        """`m` of each image's captions, `[N, m]`; over the epochs none comes again before most have come."""
        matched = np.empty((len(self._counts), m), dtype=np.int64)
        for count in np.unique(self._counts):
            rows = np.flatnonzero(self._counts == count)
            # A new shuffle when fewer than m are left, so that no image ever meets one caption twice in an
            # epoch.
            epochs_a_shuffle = max(1, int(count) // m)
            shuffle, part = divmod(epoch, epochs_a_shuffle)
            order = random_stream(seed, shuffle, int(count), _OWN).random((len(rows), count)).argsort(axis=1)
            matched[rows] = order[:, (part * m + np.arange(m)) % count]
        return matched

    @staticmethod
    def _shuffled(pool: int, wanted: int, seed: int, epoch: int) -> np.ndarray:
        """`wanted` numbers below `pool`, shuffled, each as often as any other to within one."""
        stream = random_stream(seed, epoch, _FOREIGN)
        tiles = [stream.permutation(pool) for _ in range(-(-wanted // pool))]
        return np.concatenate(tiles)[:wanted]

    def _repair(
        self,
        image: np.ndarray,
        source: np.ndarray,
        texts: np.ndarray,
        captions: np.ndarray,
        seed: int,
        epoch: int,
    ) -> np.ndarray:
        """Swaps entries of `source` (in place) until none is wrong for its image; returns the places that
        stay wrong.

        image `[P]`: the image of each place; source `[P]`: the entry of the pool put there; texts,
        captions: what each entry of the pool says, as text number and as caption number.
        """
        truth = self._truth

        def wrong(place: int, entry: int) -> bool:
            row = image[place]
            return self._has(row, texts[entry]) or (truth is not None and truth.holds(captions[entry], row))

        # An own caption is also a text of the image's own, so one comparison finds both.
        bad = self._has(image, texts[source])
        if truth is not None:
            for place in np.flatnonzero(~bad):
                bad[place] = truth.holds(captions[source[place]], image[place])
        stream = random_stream(seed, epoch, _REPAIR)
        unplaced = []
        for place in np.flatnonzero(bad):
            if not bad[place]:
                continue
            partners = stream.integers(len(source), size=_TRIES)
            for partner in _then_all(partners, stream, len(source)):
                if wrong(place, source[partner]) or wrong(partner, source[place]):
                    continue
                source[place], source[partner] = source[partner], source[place]
                bad[place] = bad[partner] = False
                break
            else:
                unplaced.append(place)
        # A later swap may have cured a place that had been given up.
        return np.array([place for place in unplaced if bad[place]], dtype=np.int64)


def _then_all(partners: np.ndarray, stream: np.random.Generator, places: int):
    """The random partners, then, only if the caller still asks, every place (or `_SEARCHED` of them) in
    random order.
    """
    yield from partners
    yield from stream.permutation(places)[:_SEARCHED]


class _Truth:
    """Whether a caption of the split is true of an image of the split; each fact and scene is parsed once."""

    def __init__(self, facts: list[dict], fact_of_caption: np.ndarray, scenes: list[dict]):
        from pixelbert_fast.data.truth import is_true

        self._is_true, self._facts, self._fact_of_caption, self._scenes = (
            is_true,
            facts,
            fact_of_caption,
            scenes,
        )

    @classmethod
    def read(cls, counts, facts, scenes) -> "_Truth | None":
        if facts is None or scenes is None:
            return None
        if len(scenes) != len(counts) or [len(one) for one in facts] != counts.tolist():
            raise UserError("the set's facts do not stand beside its captions one to one; rebuild the set")
        numbers: dict[str, int] = {}
        fact_of_caption = [numbers.setdefault(fact, len(numbers)) for one in facts for fact in one]
        return cls(
            [json.loads(fact) for fact in numbers],
            np.array(fact_of_caption, dtype=np.int64),
            [json.loads(scene) for scene in scenes],
        )

    def holds(self, caption: int, row: int) -> bool:
        return self._is_true(self._facts[self._fact_of_caption[caption]], self._scenes[row])
