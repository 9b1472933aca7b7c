"""What an epoch shows of a set, by its weight, and which of an image's captions each time.

Both read endless streams from left to right, the epoch's number saying where: passes over a set, each in
another order, and passes over an image's captions. So nothing comes again before everything has come, and no
state is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from pixelbert_fast.data.sampler import random_stream


class Showings(NamedTuple):
    """V showings of images, each int64 `[V]`.

    row: the image. turn: the pass over the set that the showing belongs to. part: which of the image's
    showings in that pass it is.
    """

    row: np.ndarray
    turn: np.ndarray
    part: np.ndarray


def showings(parts: np.ndarray, weight: float, seed: int, epoch: int, number: int = 0) -> Showings:
    """What epoch `epoch` shows of a set: `weight` passes over it.

    Args:
        parts: int64 `[N]`, how often a pass shows each image.
        weight: 1: everything once an epoch; 0.5: one half of it and the other in the next; 2: all twice.
        number: the set's, for a random order of its own.
    """
    row = np.repeat(np.arange(len(parts)), parts)
    part = np.arange(len(row)) - np.repeat(np.cumsum(parts) - parts, parts)
    # As the weight is written: three epochs of 0.3 are 9 tenths, not a little less.
    exact = Fraction(repr(float(weight)))
    begin, end = (int(count * exact * len(row)) for count in (epoch, epoch + 1))
    nothing = np.zeros(0, dtype=np.int64)
    found = [(nothing, nothing, nothing)]
    for turn in range(begin // max(len(row), 1), -(-end // max(len(row), 1))):
        first, last = (min(max(place - turn * len(row), 0), len(row)) for place in (begin, end))
        shown = np.arange(len(row))
        if last - first < len(row):
            shown = np.sort(random_stream(seed, turn, number, _PASS).permutation(len(row))[first:last])
        found.append((row[shown], np.full(len(shown), turn), part[shown]))
    return Showings(*(np.concatenate(column) for column in zip(*found, strict=True)))


def captions_by_turn(counts: np.ndarray, shown: Showings, per_showing: int, seed: int) -> np.ndarray:
    """The captions of each showing when a pass shows each image once, int64 `[V, per_showing]`.

    An image's captions are drawn without repetition until all have been shown, over as many passes as that
    takes, then again in another order; no showing holds one twice. An image with fewer captions than
    `per_showing` shows all of them each time; the places left over are -1.

    counts: int64 `[N]`, how many captions each image has.
    """
    drawn = np.full((len(shown.row), per_showing), -1, dtype=np.int64)
    for turn, count, places, members in _by_count(counts, shown):
        most = min(count, per_showing)
        order = _endless(turn, count, most, len(members.of_count), seed)
        drawn[places, :most] = order[members.rank]
    return drawn


def captions_by_part(counts: np.ndarray, shown: Showings, per_showing: int, seed: int) -> np.ndarray:
    """The captions of each showing when a pass shows all captions of each image, int64 `[V, per_showing]`.

    Each caption comes once in a pass, in showing `part = 0 .. ceil(count / per_showing) - 1` of its image;
    the places that the last of them has left over are -1.
    """
    drawn = np.full((len(shown.row), per_showing), -1, dtype=np.int64)
    for turn, count, places, members in _by_count(counts, shown):
        stream = random_stream(seed, turn, count, _ALL)
        order = stream.random((len(members.of_count), count)).argsort(axis=1)[members.rank]
        which = shown.part[places][:, None] * per_showing + np.arange(per_showing)
        taken = np.take_along_axis(order, np.minimum(which, count - 1), axis=1)
        drawn[places] = np.where(which < count, taken, -1)
    return drawn


class _Members(NamedTuple):
    """of_count: all images with so many captions. rank: which of them each showing shows."""

    of_count: np.ndarray
    rank: np.ndarray


def _by_count(counts: np.ndarray, shown: Showings) -> Iterator[tuple[int, int, np.ndarray, _Members]]:
    """The showings of one pass and of images with equally many captions: (turn, count, places, members)."""
    if not len(shown.row):
        return
    count = counts[shown.row]
    kind = (shown.turn - shown.turn.min()) * (int(counts.max()) + 1) + count
    order = np.argsort(kind, kind="stable")
    borders = np.flatnonzero(np.diff(kind[order])) + 1
    for places in np.split(order, borders):
        of_count = np.flatnonzero(counts == count[places[0]])
        rank = np.searchsorted(of_count, shown.row[places])
        yield int(shown.turn[places[0]]), int(count[places[0]]), places, _Members(of_count, rank)


def _endless(turn: int, count: int, taken: int, images: int, seed: int) -> np.ndarray:
    """Captions number `turn * taken ...` of each image's endless order, int64 `[images, taken]`.

    The order is made of shuffles of all captions, one after the other. Where a showing takes from two of
    them, the second begins with captions that the first did not end with.
    """
    # After so many shuffles a showing begins where a shuffle does, and nothing before it matters.
    shuffles = taken // np.gcd(count, taken)
    cycle, showing = divmod(turn, int(count * shuffles // taken))
    first = showing * taken
    order = _shuffled(None, 0, cycle, 0, count, images, seed)
    made = [order]
    for shuffle in range(1, (first + taken - 1) // count + 1):
        behind = shuffle * count % taken
        order = _shuffled(order[:, count - behind :], taken - behind, cycle, shuffle, count, images, seed)
        made.append(order)
    before = first // count
    return np.concatenate(made[before:], axis=1)[:, first - before * count :][:, :taken]


def _shuffled(
    ended: np.ndarray | None, head: int, cycle: int, shuffle: int, count: int, images: int, seed: int
) -> np.ndarray:
    """A shuffle of `count` captions for each image, none of `ended` among the first `head`."""
    stream = random_stream(seed, cycle, shuffle, count, _TURNS)
    keys = stream.random((images, count))
    if ended is None or not ended.shape[1]:
        return keys.argsort(axis=1)
    late = np.zeros((images, count), dtype=bool)
    np.put_along_axis(late, ended, True, axis=1)
    first = (keys + late).argsort(axis=1)[:, :head]
    again = stream.random((images, count))
    np.put_along_axis(again, first, np.take_along_axis(keys, first, axis=1) - 1, axis=1)
    return again.argsort(axis=1)


# Names of this file's random streams (see `sampler.random_stream`).
_PASS, _TURNS, _ALL = 3, 4, 5
