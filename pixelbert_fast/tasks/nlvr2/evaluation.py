"""What a model says of the statements of a split, and the official figures of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pixelbert_fast.data import sampler
from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.data.sizes import target_sizes
from pixelbert_fast.tasks.eval_mode import eval_mode
from pixelbert_fast.tasks.nlvr2.official import Statement, official_accuracy, sentence_of
from pixelbert_fast.tasks.nlvr2.sharing import SharedPairs
from pixelbert_fast.tasks.nlvr2.statements import UNKNOWN, Statements
from pixelbert_fast.tasks.protocol import Progress, percent


@dataclass(frozen=True)
class Judged:
    """Statements of a split as a model judged them, in the split's order.

    Attributes:
        members: int64 `[n]`, which statements they are.
        true: float32 `[n]`, the probability that each is true.
        images: how many different images were read; `broken` of them could not be decoded, and were of one
            colour to the model.
    """

    statements: Statements
    members: np.ndarray
    true: np.ndarray
    images: int
    broken: int

    def predictions(self) -> Iterator[tuple[str, bool]]:
        """(identifier, whether it is held to be true) of each."""
        for member, probability in zip(self.members.tolist(), self.true.tolist(), strict=True):
            yield self.statements.identifiers[member], probability > 0.5

    def metrics(self) -> dict[str, Any]:
        """`official_accuracy` over the statements whose label is known, with `images` and `broken`.

        Where the set knows what form of fact each states, also `forms`: the accuracy by form.
        """
        labels = self.statements.labels[self.members]
        names = self.statements.identifiers
        known = [
            Statement(names[member], bool(label))
            for member, label in zip(self.members.tolist(), labels.tolist(), strict=True)
            if label != UNKNOWN
        ]
        found = {**official_accuracy(known, dict(self.predictions())), "images": self.images}
        found["broken"] = self.broken
        forms = self.statements.forms
        if forms is not None:
            right = (self.true > 0.5) == labels
            own = np.array([forms[member] for member in self.members.tolist()])
            found["forms"] = {
                str(form): float(right[(own == form) & (labels != UNKNOWN)].mean())
                for form in np.unique(own[labels != UNKNOWN])
            }
        return found


def judge(
    model: nn.Module,
    split,
    statements: Statements,
    image_processor,
    *,
    images_per_pass: int = 64,
    pixels: int | None = None,
    limit: int | None = None,
    text_only: bool = False,
    decoder: str | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Judged:
    """Judges statements about images of `split` in eval mode, each image once a batch.

    images_per_pass: at most, and `pixels` of them together, height times width times images with padding; a
    single statement may take more. limit: at most so many images: then all pairs of some sentences, drawn
    evenly, are judged, so that consistency means the same. text_only: no pixels are shown. decoder, device:
    as `DecodedImages`. The model's training mode is put back afterwards.
    """
    members = _within(statements, limit)
    images = DecodedImages(split, image_processor, cache_megabytes=0, decoder=decoder, device=device)
    read = images.blank if text_only else images.pixels
    stream = sampler.random_stream(_SEED, _ORDER)
    batches = SharedPairs(statements.sides[members]).batches(max(images_per_pass // 2, 1), stream)
    true = np.zeros(len(members), dtype=np.float32)
    if pixels is not None:
        sizes = _sizes(split, image_processor)
        batches = [
            part for places in batches for part in _bounded(places, statements.sides[members], sizes, pixels)
        ]
    shown = [np.unique(statements.sides[members[places]]) for places in batches]
    done, total = 0, sum(map(len, shown))
    where = next(model.parameters()).device
    with eval_mode(model), torch.no_grad():
        for places, rows in zip(batches, shown, strict=True):
            pixel_values, pixel_size = read(rows)
            inputs = {
                **statements.words(members[places]),
                "pixel_values": pixel_values,
                "pixel_size": pixel_size,
                "image_index": torch.from_numpy(np.searchsorted(rows, statements.sides[members[places]])),
            }
            logits = model(**{name: one.to(where) for name, one in inputs.items()}).logits
            true[places] = logits.float().softmax(dim=-1)[:, 1].cpu().numpy()
            done += len(rows)
            if progress is not None:
                progress(done, total)
    different = len(np.unique(statements.sides[members]))
    return Judged(statements, members, true, different, images.broken)


def table(split: str, metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows (what, figure) of one split's metrics."""
    rows = [
        (f"{split}: accuracy of statements", f"{percent(metrics['accuracy'])} ({metrics['statements']:,})"),
        (
            f"{split}: sentences right for all their pairs",
            f"{percent(metrics['consistency'])} ({metrics['sentences']:,})",
        ),
    ]
    if metrics["broken"]:
        told = f"{metrics['broken']:,} of {metrics['images']:,}"
        rows.append((f"{split}: images that cannot be decoded", told))
    rows += [(f"{split}:   {form}", percent(share)) for form, share in metrics.get("forms", {}).items()]
    return rows


def _sizes(split, rule) -> np.ndarray:
    """Height and width to which each image is resized, int64 `[N, 2]`."""
    columns = split.select_columns(["height", "width"]).with_format("numpy")[:]
    recorded = np.stack([columns["height"], columns["width"]], axis=1)
    return target_sizes(recorded, rule.short_side, rule.long_side, rule.size_divisor, rule.least_side)


def _bounded(places: np.ndarray, sides: np.ndarray, sizes: np.ndarray, pixels: int) -> Iterator[np.ndarray]:
    """A batch, halved until each part's images are `pixels` at most or it is one statement."""
    rows = np.unique(sides[places])
    if len(places) == 1 or len(rows) * int(sizes[rows].max(axis=0).prod()) <= pixels:
        yield places
        return
    for half in np.array_split(places, 2):
        yield from _bounded(half, sides, sizes, pixels)


def _within(statements: Statements, limit: int | None) -> np.ndarray:
    """Which statements to judge, ascending: those of as many whole sentences as read at most `limit` images.

    One sentence at least.
    """
    every = np.arange(len(statements))
    if limit is None or len(np.unique(statements.sides)) <= limit:
        return every
    sentences: dict[str, list[int]] = {}
    for member, identifier in enumerate(statements.identifiers):
        sentences.setdefault(sentence_of(identifier), []).append(member)
    listed = list(sentences.values())
    chosen: list[int] = []
    images: set[int] = set()
    for number in sampler.random_stream(_SEED, _SENTENCES).permutation(len(listed)).tolist():
        more = images | set(statements.sides[listed[number]].reshape(-1).tolist())
        if chosen and len(more) > limit:
            continue
        chosen, images = chosen + listed[number], more
    return np.array(sorted(chosen), dtype=np.int64)


# One seed for every evaluation, whatever the run's: figures of different runs are of the same statements.
_SEED = 2004
_ORDER, _SENTENCES = 52, 53
