"""The report of an evaluation of a checkpoint on a split."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pixelbert_fast.tasks.examples import Group
from pixelbert_fast.visualize.markup import escaped
from pixelbert_fast.visualize.report.cards import example_cards
from pixelbert_fast.visualize.report.document import document, pairs_table
from pixelbert_fast.visualize.report.page import made_by_rows, metric_tables, tiles
from pixelbert_fast.visualize.report.pictures import Album


def evaluation_page(
    about: Mapping[str, str],
    metrics: Mapping[str, Any],
    guesses: Mapping[str, float],
    groups: Sequence[Group],
    no_examples: str,
    made_by: Mapping[str, Any],
    *,
    text_only: bool = False,
) -> str:
    """One self-contained HTML page; every text in it is escaped.

    Args:
        about: `task`, `checkpoint`, `data` and `split`.
        metrics: of the split.
        guesses: what guessing gives, by figure (see `figures.rows`).
        groups: examples; where there are none, `no_examples` says why.
        made_by: `versions`, `revision` and `machine`.
        text_only: whether the model was shown blank images.
    """
    album, split = Album(), about["split"]
    cards = example_cards(groups, album, text_only=text_only)
    if not cards and no_examples:
        cards = f'<p class="faint">{escaped(no_examples)}</p>'
    by_split, known = {split: metrics}, {split: guesses}
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    told = f"{about['checkpoint']} on the split {split} of {about['data']}; written {written}."
    head = f'<p class="faint">{escaped(told)}</p>{tiles(about["task"], by_split, known)}'
    sections = [
        ("Metrics", metric_tables(about["task"], (0, by_split), known)),
        ("Examples", cards),
        ("Versions and machine", pairs_table(made_by_rows(made_by))),
    ]
    return document(f"An evaluation: {about['task']}", head, sections, album.style())
