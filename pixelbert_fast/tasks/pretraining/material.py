"""The images and captions that pre-training reads, of one set or of several, and what each epoch shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from pixelbert_fast.data import mixing
from pixelbert_fast.data.captions import CaptionTexts, TokenisedCaptions, caption_column
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.pretraining.matching import EpochPlan, Matcher, share_out

Epoch = Literal["images", "captions"]


@dataclass(frozen=True)
class Part:
    """A split to pre-train on, one of several.

    weight: how often an epoch shows it: 1 once, 0.5 one half of it, 0 not at all. name: in errors.
    """

    split: object
    weight: float = 1.0
    name: str = "the split"


class Shown(NamedTuple):
    """What an epoch shows: V images, some of them more than once.

    row: int64 `[V]`, the image. plan: the captions beside each, their images numbered as `row` is. longest:
    int64 `[V]`, the token ids of the longest of them, where that is asked for.
    """

    row: np.ndarray
    plan: EpochPlan
    longest: np.ndarray | None = None


class Material:
    """Several splits numbered through: the images of the second follow those of the first.

    Attributes:
        captions: the captions of all images, tokenised.

    Raises UserError where there is nothing to show, or a split has an image without captions.
    """

    def __init__(self, parts: Sequence[Part], tokenizer, max_text_length: int):
        for part in parts:
            if not 0 <= part.weight < float("inf"):
                raise UserError(f"{part.name} has the weight {part.weight}: it must be 0 or more")
        self._parts = [part for part in parts if part.weight > 0 and len(part.split)]
        if not self._parts:
            raise UserError("the split to pre-train on is empty; build the set with more images")
        splits = [part.split for part in self._parts]
        every = CaptionTexts(caption_column(*splits))
        # A single split's texts are numbered once for both.
        each = [every] if len(splits) == 1 else [CaptionTexts(caption_column(split)) for split in splits]
        self._matchers = [
            _matcher(part, own, len(splits) > 1) for part, own in zip(self._parts, each, strict=True)
        ]
        self._offsets = np.cumsum([0, *(len(own) for own in each)])
        self.captions = TokenisedCaptions(every, tokenizer, max_text_length)

    def __len__(self) -> int:
        """How many images there are."""
        return int(self._offsets[-1])

    def images(self, columns: Sequence[str], optional: Sequence[str] = ()):
        """These columns of all images, a `datasets.Dataset` of rows as they are numbered here.

        optional: columns that come where all splits have them.
        """
        from datasets import concatenate_datasets

        there = [name for name in optional if all(name in part.split.column_names for part in self._parts)]
        columns = [*columns, *there]
        parts = [part.split.select_columns(list(columns)) for part in self._parts]
        return parts[0] if len(parts) == 1 else concatenate_datasets(parts)

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """(height, width) of all images as recorded, int32 `[N]` each."""
        columns = self.images(["height", "width"]).with_format("numpy")[:]
        return columns["height"].astype(np.int32), columns["width"].astype(np.int32)

    def shown(
        self, seed: int, epoch: int, captions_per_image: int, mismatched_share: float, kind: Epoch | None
    ) -> Shown:
        """What an epoch shows.

        kind: "images": each image once (by a weight of 1), its captions drawn without repetition until all
        have been shown, in this epoch and later ones. "captions": each image as often as it takes to show
        all of its captions once. None: as "images", which captions by the first rule of `Matcher.plan`; only
        with a single split of weight 1.

        Mismatched captions come from the same split and the same epoch, each text as often as it is matched.
        """
        first = self._parts[0]
        if kind is None and len(self._parts) == 1 and first.weight == 1:
            plan = self._matchers[0].plan(seed, epoch, captions_per_image, mismatched_share)
            return Shown(np.arange(len(self)), plan)
        m, k = share_out(captions_per_image, mismatched_share)
        rows, plans = [], []
        for number, (part, matcher) in enumerate(zip(self._parts, self._matchers, strict=True)):
            parts = -(-matcher.counts // m) if kind == "captions" else np.ones_like(matcher.counts)
            shown = mixing.showings(parts, part.weight, seed, epoch, number)
            draw = mixing.captions_by_part if kind == "captions" else mixing.captions_by_turn
            matched = draw(matcher.counts, shown, m, seed)
            plans.append(matcher.mismatched(shown.row, matched, k, seed, epoch))
            rows.append(shown.row + self._offsets[number])
        return _without_empty(Shown(np.concatenate(rows), _together(plans, self._offsets)), epoch)

    def longest(self, shown: Shown) -> np.ndarray:
        """The token ids of the longest caption beside each shown image, int64 `[V]`, at least 1."""
        plan = shown.plan
        owner = np.concatenate(
            [np.broadcast_to(shown.row[:, None], plan.matched.shape), plan.mismatched[..., 0]], axis=1
        )
        number = np.concatenate([plan.matched, plan.mismatched[..., 1]], axis=1)
        # Where a pair is left out any caption will do: it counts as nothing.
        there = number >= 0
        lengths = self.captions.lengths(np.where(there, owner, 0), np.where(there, number, 0))
        return np.where(there, lengths, 1).max(axis=1)


def _matcher(part: Part, captions: CaptionTexts, several: bool) -> Matcher:
    known = "facts" in part.split.column_names and "scene" in part.split.column_names
    facts, scenes = (part.split[name][:] if known else None for name in ("facts", "scene"))
    try:
        return Matcher(captions, facts, scenes)
    except UserError as error:
        raise (UserError(f"{part.name}: {error}") if several else error) from error


def _without_empty(shown: Shown, epoch: int) -> Shown:
    """Without the images of which every pair was left out: a batch of none but such would have no loss."""
    plan = shown.plan
    kept = (plan.matched >= 0).any(axis=1) | (plan.mismatched[..., 1] >= 0).any(axis=1)
    if not kept.any():
        raise UserError(
            f"epoch {epoch} has nothing to show: the sets are too small for their weights, or every caption "
            "is true of every image"
        )
    return Shown(shown.row[kept], EpochPlan(plan.matched[kept], plan.mismatched[kept], plan.dropped))


def _together(plans: list[EpochPlan], offsets: np.ndarray) -> EpochPlan:
    mismatched = []
    for plan, offset in zip(plans, offsets, strict=False):
        moved = plan.mismatched.copy()
        moved[..., 0] += np.where(moved[..., 0] >= 0, offset, 0)
        mismatched.append(moved)
    return EpochPlan(
        np.concatenate([plan.matched for plan in plans]),
        np.concatenate(mismatched),
        sum(plan.dropped for plan in plans),
    )
