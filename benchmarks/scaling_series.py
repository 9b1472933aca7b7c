"""The series of `bench_scaling`: what varies, what is kept, who takes part, and the check before any time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial

import model_contests
import op_contests
import torch
from rows import Work
from torch import Tensor

from pixelbert_fast import PixelBertForPreTraining
from pixelbert_fast.model.flops import forward_flops, map_shape, training_flops

# Of pairs that are read, when something else varies.
WORDS = len(model_contests.QUESTION)
# Of a model without heads, as it reads.
PARTS = ("backbone", "projection", "embeddings", "encoder", "pooler")
# The reference and ours, with the same weights.
Models = dict[str, PixelBertForPreTraining]


@dataclass(frozen=True)
class Point:
    """One size of a series.

    Attributes:
        size: its value, as the slope is taken by.
        runs: by contestant.
        verify: raises AssertionError where results differ by more than they may.
        work: counts what all of them have to do.
        items: how many of the series' `item` a run goes through.
    """

    size: int
    runs: dict[str, Callable[[], object]]
    verify: Callable[[], None]
    work: Callable[[], Work]
    items: int


@dataclass(frozen=True)
class Series:
    """One size in several values, ascending; `point` makes one of them, with what it needs of memory."""

    name: str
    size: str
    values: tuple[int, ...]
    point: Callable[[int], Point]
    dtype: str
    checked: str
    item: str = "sequences"
    reference: str = "reference"


def all_series(device: str) -> list[Series]:
    """Those of the ops, of a training step and of reading pairs; on a GPU at the paper's sizes."""
    return [*_of_ops(device), *_of_steps(device), *_of_reading(device)]


def _of_ops(device: str) -> list[Series]:
    if torch.device(device).type == "cpu":
        case, batches = op_contests.Case("pool_gather", batch=4), (2, 4, 8, 16)
    else:
        case = op_contests.Case("pool_gather", device, "bfloat16", batch=16, height=25, width=33)
        batches = (8, 16, 32, 64)
    # Of 12 x 16 pooled places, up to all of them.
    counts, captions = (24, 48, 96, 192), (1, 2, 4, 8)
    found = [
        _op(case, size, field, values, backward)
        for backward in (False, True)
        for size, field, values in (
            ("batch", "batch", batches),
            ("K", "count", counts),
            ("captions", "per_image", captions),
        )
    ]
    embed = replace(case, op="pixel_embed")
    found += [_op(embed, "K", "count", counts, backward) for backward in (False, True)]
    places = replace(case, op="sample_positions", dtype="float32")
    return [*found, _op(places, "sequences", "batch", (8, 64, 512), False)]


def _op(case: op_contests.Case, size: str, field: str, values: tuple[int, ...], backward: bool) -> Series:
    kept = {
        "batch": f"{case.batch} images",
        "K": f"K = {case.count}",
        "captions": f"{case.per_image} sequence{'s' if case.per_image > 1 else ''} an image",
    }
    kept.pop(size, None)
    if case.op == "sample_positions":
        about = [kept["K"], f"of {case.grid[0]} x {case.grid[1]} places"]
    else:
        to = f" -> {case.dimensions}, {case.order}" if case.op == "pixel_embed" else ""
        maps = f"maps of {case.channels} x {case.height} x {case.width}{to}"
        about = [maps, *kept.values(), case.dtype, case.layout]
    passes = "forward + backward" if backward else "forward"
    return Series(
        f"{case.op} against {size}: {', '.join(about)}: {passes}",
        size,
        values,
        lambda value: _op_point(replace(case, **{field: value}), value, backward),
        case.dtype,
        "equal to the bit, sums within twice the reference's own error",
        reference=op_contests.REFERENCE,
    )


def _op_point(case: op_contests.Case, size: int, backward: bool) -> Point:
    values = op_contests.given(case)
    plain = op_contests.contestants(case, values, compiled=())
    around = (lambda run: op_contests.training(run, values)) if backward else torch.no_grad()

    def work() -> Work:
        least = op_contests.least_work(case, values, backward=backward)
        return Work(least.bytes, least.flops or None)

    runs = {name: around(run) for name, run in plain.items()}
    verify = partial(op_contests.verify, case, values, plain)
    return Point(size, runs, verify, work, case.batch * case.per_image)


def _of_steps(device: str) -> list[Series]:
    if torch.device(device).type == "cpu":
        # The preset's own images have 6 x 6 places; K is varied in larger ones, with 10 x 10.
        case = model_contests.Case(preset="tiny", images=4, height=96, width=96, pixels=30)
        wide = replace(case, height=160, width=160)
        batches, sides, counts, lengths = (
            (2, 4, 8, 16),
            (64, 96, 128, 192),
            (12, 25, 50, 100),
            (8, 16, 32, 64),
        )
    else:
        case = wide = model_contests.Case(
            device=device, dtype="bfloat16", images=4, height=800, width=1066, pixels=100
        )
        batches, sides, counts, lengths = (2, 4, 8, 16), (256, 512, 1024), (24, 48, 96, 192), (16, 64, 256)

    @lru_cache(maxsize=1)  # of the sizes only K is a model's own
    def models(pixels: int) -> Models:
        return model_contests.pair(replace(case, pixels=pixels))

    step = partial(_step_series, models)
    return [
        step(case, "batch", batches, lambda value: replace(case, images=value)),
        # As many pixels sampled as the smallest image has.
        step(
            replace(case, pixels=16),
            "pixels",
            sides,
            lambda value: replace(case, height=value, width=value, pixels=16),
        ),
        step(case, "captions", (1, 2, 4, 8), lambda value: replace(case, captions=value)),
        step(wide, "K", counts, lambda value: replace(wide, pixels=value)),
        step(case, "words", lengths, lambda _: case),
    ]


def _step_series(
    models: Callable[[int], Models],
    base: model_contests.Case,
    size: str,
    values: tuple[int, ...],
    case: Callable[[int], model_contests.Case],
) -> Series:
    captions = f"{base.captions} captions each"
    kept = {
        "batch": f"{base.images} images",
        "pixels": f"{base.height} x {base.width}",
        "captions": captions,
        "K": f"K = {base.pixels}",
        "words": f"captions of {model_contests.WORDS} pieces with padding",
    }
    return Series(
        _named("step", base, size, kept),
        size,
        values,
        lambda value: _step_point(models, case(value), size, value),
        base.dtype,
        "losses and logits within 1e-4" if base.dtype == "float32" else "within twice the reference's error",
        reference=model_contests.REFERENCE,
    )


def _named(what: str, base: model_contests.Case, size: str, kept: dict[str, str]) -> str:
    kept = {name: text for name, text in kept.items() if name != size}
    return f"{what} against {size}: {base.preset}, {base.norm} norm, {base.dtype}, {', '.join(kept.values())}"


def _step_point(
    models_of: Callable[[int], Models], case: model_contests.Case, size: str, value: int
) -> Point:
    given = model_contests.batch(case)
    if size == "words":
        given |= _texts(given, value)
    models = models_of(case.pixels)
    runs = {who: model_contests.training_step(model, given) for who, model in models.items()}
    config = models[model_contests.FAST].config
    predicted = given["matched"].bool() | config.mlm_on_mismatched

    def work() -> Work:
        each = training_flops(
            config,
            image_size=(case.height, case.width),
            images=case.images,
            sequences=case.sequences,
            text_length=given["attention_mask"].sum(dim=1).tolist(),
            pixels=case.pixels,
            masked=int((given["labels"][predicted] >= 0).sum()),
            fast=True,
        )
        return Work(flops=sum(each.values()))

    return Point(
        value**2 if size == "pixels" else value,
        runs,
        lambda: model_contests.verify(case, models, given),
        work,
        case.sequences,
    )


def _texts(given: dict[str, Tensor], words: int) -> dict[str, Tensor]:
    """Texts of so many pieces without padding, every sixth of them masked, in place of those of `given`."""
    ids = given["input_ids"]
    generator = torch.Generator().manual_seed(1)
    # Pieces that every vocabulary here has.
    drawn = torch.randint(1000, 2000, (len(ids), words), generator=generator).to(ids.device)
    masked = torch.arange(words, device=ids.device) % 6 == 1
    return {
        "input_ids": drawn,
        "attention_mask": torch.ones_like(drawn),
        "labels": torch.where(masked, drawn, -100),
    }


def _of_reading(device: str) -> list[Series]:
    if torch.device(device).type == "cpu":
        case, sides, sequences = (
            model_contests.Case(images=1, captions=1, width=256),
            (128, 256, 512),
            (1, 4, 16),
        )
    else:
        case = model_contests.Case(
            device=device, dtype="bfloat16", images=1, captions=1, height=800, width=1066
        )
        sides, sequences = (256, 512, 1024), (1, 4, 16, 64)
    models = cache(lambda: model_contests.pair(case))
    return [
        reading(case, "pixels", sides, models),
        reading(case, "words", (16, 64, 256), models),
        reading(case, "sequences", sequences, models),
    ]


def reading(
    base: model_contests.Case, size: str, values: tuple[int, ...], models: Callable[[], Models]
) -> Series:
    """One pair, or several sequences beside one image, read without gradients; `models` gives both."""
    kept = {
        "pixels": f"1 image of {base.height} x {base.width}",
        "words": f"texts of {WORDS} pieces",
        "sequences": "1 sequence",
    }
    return Series(
        _named("reading", base, size, kept),
        size,
        values,
        lambda value: _reading_point(models(), base, size, value),
        base.dtype,
        "pooled output within 1e-4" if base.dtype == "float32" else "within twice the reference's error",
        reference=model_contests.REFERENCE,
    )


def _reading_point(models: Models, base: model_contests.Case, size: str, value: int) -> Point:
    case = replace(base, height=value, width=value) if size == "pixels" else base
    given = model_contests.question(case)
    words, sequences = (value if size == "words" else WORDS), (value if size == "sequences" else 1)
    pieces = torch.arange(words * sequences).view(sequences, words) % 1000 + 1000
    given["input_ids"] = pieces.to(given["input_ids"])
    given["image_index"] = torch.zeros(sequences, dtype=torch.int64, device=case.device)
    runs = {who: model_contests.inference(model.pixelbert, given) for who, model in models.items()}

    def verify() -> None:
        truth = runs[model_contests.REFERENCE]
        if case.dtype != "float32":
            wide = model_contests.pair(replace(case, dtype="float32"))[model_contests.REFERENCE].pixelbert
            truth = model_contests.inference(wide, given | {"pixel_values": given["pixel_values"].float()})
        model_contests.verify_inference(case, runs, truth())

    config = models[model_contests.FAST].config
    _, rows, columns = map_shape(config, (case.height, case.width))

    def work() -> Work:
        each = forward_flops(
            config,
            image_size=(case.height, case.width),
            images=1,
            sequences=sequences,
            text_length=words,
            pixels=(rows // 2) * (columns // 2),
        )
        return Work(flops=sum(each[part] for part in PARTS))

    return Point(value**2 if size == "pixels" else value, runs, verify, work, sequences)
