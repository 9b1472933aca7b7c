"""`pixelbert data show`: figures of a split, and its contact sheet in a file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pixelbert_fast.data.records import open_set
from pixelbert_fast.data.resizing import check_size_options
from pixelbert_fast.data.summary import SizeRule, load_tokenizer, summarise, table
from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.model.config import PRESETS, PixelBertConfig
from pixelbert_fast.visualize.contact_page import page
from pixelbert_fast.visualize.contact_sheet import take_images


class Shown(NamedTuple):
    """The page that was written, and lines to print."""

    page: Path
    lines: list[str]


def show(
    directory: Path | str,
    *,
    split: str | None = None,
    images: int = 24,
    out: Path | str | None = None,
    preset: str = "r50",
    short_side: int | None = None,
    long_side: int | None = None,
    size_divisor: int = 1,
    tokenizer: str | None = None,
) -> Shown:
    """Write the contact sheet of a built set to `out` (default: SET-SPLIT.html in the working directory).

    Args:
        split: default: the first that has images.
        images: how many, evenly spread over the split.
        preset: the model whose image size and sampled places are shown; the next three change the size.
        tokenizer: a transformers tokenizer's folder or name, for lengths in word pieces instead of words.

    Raises UserError for a directory without a set and an option of no use, RunError where `out` cannot be
    written.
    """
    if preset not in PRESETS:
        raise UserError(f"--preset must be one of {', '.join(PRESETS)}, not {preset!r}")
    config = PixelBertConfig.preset(preset)
    rule = SizeRule(
        config.short_side if short_side is None else short_side,
        config.long_side if long_side is None else long_side,
        size_divisor,
        # As in training: no image is too narrow for one pixel of the backbone's map.
        config.output_stride + 1,
    )
    check_size_options(*rule)
    built = open_set(directory)
    if split is None:
        split = next((name for name, number in built.card["counts"].items() if number), "train")
    out = Path(out) if out is not None else Path(f"{Path(directory).resolve().name}-{split}.html")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file for the page")
    sheets = take_images(built, split, images, rule, config)
    data = built.split(split)
    pairs = (built.card.get("pairs") or {}).get(split)
    figures = table(
        summarise(
            data,
            rule,
            load_tokenizer(tokenizer) if tokenizer else None,
            built.pairs(split)["statement"][:] if pairs else None,
        )
    )
    title = f"{built.card.get('name', Path(directory).name)}, {split}"
    about = [
        f"{len(sheets):,} of {len(data):,} images, evenly spread",
        f"Sizes are height x width; {preset} resizes to a short side of {rule.short_side} and a long side of "
        f"at most {rule.long_side} pixels"
        + (f", both multiples of {rule.divisor}" if rule.divisor > 1 else "")
        + f", and in training reads {config.sampled_pixels or 'all'} places of each image, drawn anew each "
        "time: the darkened ones are left out",
    ]
    _write(out, page(title, about, figures, sheets))
    broken = sum(not sheet.uri for sheet in sheets)
    lines = [f"{directory}, split {split}: {len(data):,} images", *figures]
    if broken:
        lines.append(f"{broken:,} of the {len(sheets):,} images on the sheet cannot be decoded: it says why")
    return Shown(out, [*lines, f"wrote {out} with {len(sheets):,} images"])


def _write(out: Path, content: str) -> None:
    beside = out.with_name(f"{out.name}.{os.getpid()}.new")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(content, encoding="utf-8")
        os.replace(beside, out)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise RunError(f"{out} cannot be written ({error.strerror}): name another file with --out") from error
