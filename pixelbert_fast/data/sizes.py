"""The size plan: few sizes for all images of a run, so that every batch is of one size.

Each image is resized to the size of its bucket exactly where that changes its aspect ratio by no more than a
stated bound. The model then meets no padding, which it supports and pays for. The few images whose shape no
bucket comes near keep their own proportions and are padded within a bucket (the batch's `pixel_size`), which
keeps the model's outputs those of the image alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .resizing import check_size_options


@dataclass(frozen=True)
class SizePlan:
    """What each of n images is resized to, and the size of the batches it comes in.

    Attributes:
        buckets: int32 `[K, 2]`, (height, width) in pixels of the batches.
        bucket: int32 `[n]`, the bucket of each image.
        size: int32 `[n, 2]`, (height, width) that each image is resized to; less than its bucket's where it
            is padded at the right or at the bottom.
        group: int32 `[n]`, images of one number may share a batch: those of a bucket, the padded ones apart
            from the others where there are enough of them, for one padded image makes its whole batch slow.
    """

    buckets: np.ndarray
    bucket: np.ndarray
    size: np.ndarray
    group: np.ndarray

    @property
    def padded(self) -> np.ndarray:
        """bool `[n]`, whether an image does not fill its bucket."""
        return (self.size != self.buckets[self.bucket]).any(axis=1)

    def described(self) -> str:
        """The buckets with their shares of the images, in words."""
        counts = np.bincount(self.bucket, minlength=len(self.buckets))
        shares = [
            f"{height} x {width} ({100 * count / max(len(self.bucket), 1):.1f} %)"
            for (height, width), count in zip(self.buckets.tolist(), counts.tolist(), strict=True)
        ]
        padded = 100 * float(self.padded.mean()) if len(self.bucket) else 0.0
        return f"batches of {', '.join(shares)}; {padded:.1f} % of the images are padded within theirs"

    def canvas(self, row: int) -> tuple[int, int]:
        """(height, width) of the batches that image `row` comes in."""
        height, width = self.buckets[self.bucket[row]]
        return int(height), int(width)


def target_sizes(
    sizes: np.ndarray, short_side: int, long_side: int, divisor: int = 1, least_side: int = 1
) -> np.ndarray:
    """`resizing.target_size` of many images at once: integers `[n, 2]` (height, width) -> int64 `[n, 2]`.

    No side becomes less than `least_side` rounded up to a multiple of `divisor`.
    """
    check_size_options(short_side, long_side, divisor, least_side)
    sizes = np.asarray(sizes, dtype=np.int64).reshape(-1, 2)
    _check_recorded(sizes)
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    new_short = np.full(len(sizes), short_side, dtype=np.int64)
    new_long = short_side * long // np.maximum(short, 1)
    capped = new_long > long_side
    new_short[capped] = np.maximum(long_side * short[capped] // long[capped], 1)
    new_long[capped] = long_side
    upright = sizes[:, 0] > sizes[:, 1]
    target = np.stack(
        [np.where(upright, new_long, new_short), np.where(upright, new_short, new_long)], axis=1
    )
    least = -(-least_side // divisor) * divisor
    return np.maximum(np.maximum((2 * target + divisor) // (2 * divisor), 1) * divisor, least)


def plan_sizes(
    height: np.ndarray,
    width: np.ndarray,
    short_side: int,
    long_side: int,
    divisor: int = 1,
    *,
    buckets: int = 8,
    aspect_change: float = 0.08,
    fewest: int = 1,
    least_side: int = 1,
) -> SizePlan:
    """Choose the buckets for images of these sizes and give each image its own.

    Buckets are sizes that the paper's rule gives (`resizing.target_size`, with `divisor`), the most wanted
    first: each is the one that takes most of the images left, those it changes less counting for more. An
    image goes to the bucket nearest to its aspect ratio when the resize multiplies or divides that ratio by
    no more than `1 + aspect_change`. The others get the rule's size without the divisor, and are padded
    within the smallest bucket that holds it, if need be one or two more that hold all of them (upright and
    lying images); where one of those would hold fewer than `fewest` images, they are made smaller, in
    proportion, to fit a bucket that is there.

    Args:
        height, width: integers `[n]`, the sizes of the images as they are seen (EXIF rotation applied).
        buckets: at most so many.
        aspect_change: the bound; 0 lets only images through that fit exactly.
        fewest: images that a bucket is worth having for: those of a batch.
        least_side: no side becomes less, in pixels, whatever that does to the proportions of an image of 1 x
            1000: the backbone must find at least one place in it.

    Raises UserError for options that are not positive or not in order, or an image without pixels.
    """
    if buckets < 1 or not 0 <= aspect_change < 1:
        raise UserError(
            f"a size plan needs at least 1 bucket and an aspect_change of at least 0 and below 1, not "
            f"{buckets} and {aspect_change}"
        )
    recorded = np.stack([np.asarray(height), np.asarray(width)], axis=1).astype(np.int32).reshape(-1, 2)
    _check_recorded(recorded)
    kinds, kind, count = _distinct(recorded)
    rounded = target_sizes(kinds, short_side, long_side, divisor, least_side)
    exact = target_sizes(kinds, short_side, long_side, 1, least_side)
    chosen = _most_wanted(kinds, rounded, count, buckets, aspect_change, fewest)
    while True:
        size, bucket = _assigned(kinds, exact, chosen, aspect_change)
        rest = _catch_all(exact, bucket, count, divisor, fewest if len(chosen) else 1, buckets)
        if len(chosen) + len(rest) <= buckets:
            break
        chosen = chosen[:-1]
    if len(rest):
        size, bucket = _assigned(kinds, exact, chosen, aspect_change, rest)
    every = np.concatenate([chosen, rest]).astype(np.int32)
    lost = bucket < 0
    if lost.any():
        size[lost], bucket[lost] = _squeezed_in(exact[lost], every, least_side)
    used, number = np.unique(bucket, return_inverse=True)
    every, bucket = every[used], number.reshape(-1).astype(np.int32)
    padded = (size != every[bucket]).any(axis=1)
    many = np.bincount(bucket[padded], weights=count[padded], minlength=len(every)) >= fewest
    group = 2 * bucket + (padded & many[bucket])
    return SizePlan(every, bucket[kind], size.astype(np.int32)[kind], group.astype(np.int32)[kind])


def _check_recorded(sizes: np.ndarray) -> None:
    if len(sizes) and sizes.min() < 1:
        row = int(np.flatnonzero(sizes.min(axis=1) < 1)[0])
        raise UserError(
            f"image {row} is recorded as {sizes[row, 0]} x {sizes[row, 1]} pixels: both sides must be at "
            "least 1; build the set again"
        )


def _distinct(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different sizes, which of them each image has, and how many have it: all that choosing needs."""
    words = sizes[:, 0].astype(np.int64) << 32 | sizes[:, 1]
    found, kind, count = np.unique(words, return_inverse=True, return_counts=True)
    return np.stack([found >> 32, found & 0xFFFFFFFF], axis=1), kind.reshape(-1), count


def _aspect(sizes: np.ndarray) -> np.ndarray:
    """log(width / height): the change from one ratio to another is a difference."""
    return np.log(sizes[:, 1] / sizes[:, 0])


def _most_wanted(
    kinds: np.ndarray, rounded: np.ndarray, count: np.ndarray, most: int, change: float, fewest: int
) -> np.ndarray:
    """Up to `most` sizes, each the one that takes most of the images that those before it have left."""
    order = np.argsort(_aspect(kinds), kind="stable")
    aspect, left = _aspect(kinds)[order], count[order].copy()
    candidates = np.unique(rounded, axis=0)
    bound = np.log1p(change) + _ROUNDING
    begin = np.searchsorted(aspect, _aspect(candidates) - bound, side="left")
    end = np.searchsorted(aspect, _aspect(candidates) + bound, side="right")
    middle = np.searchsorted(aspect, _aspect(candidates))
    chosen = []
    while len(chosen) < most and len(candidates):
        sums, moments = (np.concatenate([[0], np.cumsum(one)]) for one in (left, left * aspect))
        taken = sums[end] - sums[begin]
        # The sum of the distances from a candidate's aspect: of the images above it and of those below.
        far = moments[end] - 2 * moments[middle] + moments[begin]
        far -= _aspect(candidates) * (sums[end] - 2 * sums[middle] + sums[begin])
        worth = np.where(taken < max(fewest, 1), 0.0, taken - far / (2 * bound))
        best = int(worth.argmax())
        if worth[best] <= 0:
            break
        chosen.append(candidates[best])
        left[begin[best] : end[best]] = 0
    return np.array(chosen, dtype=np.int64).reshape(-1, 2)


def _assigned(
    kinds: np.ndarray, exact: np.ndarray, chosen: np.ndarray, change: float, rest: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(size `[U, 2]`, bucket `[U]`) of each kind; bucket -1 where it neither comes near one nor fits in."""
    size, bucket = exact.copy(), np.full(len(kinds), -1, dtype=np.int64)
    if len(chosen):
        own, aspects = _aspect(kinds), _aspect(chosen)
        order = np.argsort(aspects, kind="stable")
        borders = (aspects[order][1:] + aspects[order][:-1]) / 2
        nearest = order[np.searchsorted(borders, own)]
        near = np.abs(own - aspects[nearest]) <= np.log1p(change) + _ROUNDING
        size[near], bucket[near] = chosen[nearest[near]], nearest[near]
    every = chosen if rest is None else np.concatenate([chosen, rest])
    # The smallest first, so that the first that holds an image is the cheapest.
    for number in np.argsort(every.prod(axis=1), kind="stable"):
        fits = (bucket < 0) & (exact <= every[number]).all(axis=1)
        bucket[fits] = number
    return size, bucket


def _catch_all(
    exact: np.ndarray, bucket: np.ndarray, count: np.ndarray, divisor: int, fewest: int, most: int
) -> np.ndarray:
    """Sizes that hold the images without a bucket: one for lying ones and one for upright ones, or none."""
    without = bucket < 0
    upright = exact[:, 0] > exact[:, 1]
    groups = [without & ~upright, without & upright] if most > 1 else [without]
    held = [exact[group].max(axis=0) for group in groups if count[group].sum() >= fewest and group.any()]
    return -(-np.array(held, dtype=np.int64).reshape(-1, 2) // divisor) * divisor


def _squeezed_in(exact: np.ndarray, chosen: np.ndarray, least_side: int) -> tuple[np.ndarray, np.ndarray]:
    """The bucket in which each image stays largest, and its size there, no side less than `least_side`."""
    scale = np.minimum(chosen[None] / exact[:, None], 1.0).min(axis=2)
    best = scale.argmax(axis=1)
    return _shrunk(exact, chosen[best], least_side), best


def _shrunk(sizes: np.ndarray, within: np.ndarray, least_side: int) -> np.ndarray:
    """The largest size in proportion to each of `sizes` inside `within`, thickened to `least_side`: int64."""
    scale = (within / sizes).min(axis=1, keepdims=True)
    scaled = np.floor(sizes * np.minimum(scale, 1.0) + _ROUNDING).astype(np.int64)
    # No bucket has a side below `least_side`.
    return np.clip(scaled, least_side, within)


# What the quotients and logarithms of whole numbers below 2**31 may be off by.
_ROUNDING = 1e-9
