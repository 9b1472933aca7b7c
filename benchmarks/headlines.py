"""The few cases of a report that its readers ask for first, and what each line of them says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stored
import written
from stored import Report, Row

RIVALS = ("reference", "ours", "peer")
VILT = "vilt"


class Headline(NamedTuple):
    """What is looked for in a report.

    Attributes:
        title: what it is called.
        stage: where it stands.
        pattern: found in the case.
        dtype: of its rows; None: any.
        vilt: whether ViLT takes part.
        rate: shown as items a second, not as milliseconds.
        most: cases of it that are shown.
    """

    title: str
    stage: str
    pattern: str = ""
    dtype: str | None = None
    vilt: bool = False
    rate: bool = False
    most: int = 1


def _op(name: str, which: str) -> str:
    """A pass of an op in which every image has one sequence."""
    return rf"^{name} (?!.*sequences an image).*: {re.escape(which)}$"


HEADLINES = (
    Headline("`sample_positions`", "ops", "^sample_positions "),
    Headline("`pool_gather`, forward", "ops", _op("pool_gather", "forward")),
    Headline("`pool_gather`, forward and backward", "ops", _op("pool_gather", "forward + backward")),
    Headline("`pixel_embed`, forward and backward", "ops", _op("pixel_embed", "forward + backward")),
    Headline("a step of pre-training, float32", "step", "^step", "float32"),
    Headline("a step of pre-training, bfloat16", "step", "^step", "bfloat16"),
    Headline("a training step beside ViLT-B/32", "step", vilt=True),
    Headline("latency of one pair, float32", "latency", "^one pair", "float32"),
    Headline("latency of one pair, bfloat16", "latency", "^one pair", "bfloat16"),
    Headline("latency of one pair beside ViLT-B/32", "latency", vilt=True),
    Headline("scoring pairs for retrieval", "retrieval", rate=True),
    Headline("decoding images", "decoding", rate=True),
    Headline("the optimiser's update", "optimizer", most=2),
    Headline("an update through DeepSpeed (below 1: slower than without)", "engine", most=2),
)


def found(report: Report, headline: Headline) -> list[list[Row]]:
    """The rows of the cases of a headline, in the order of the report; empty: not measured."""
    cases = []
    for case, rows in stored.cases_of(stored.rows_of(report, headline.stage)).items():
        rivals = [row for row in rows if row["role"] in RIVALS and not row.get("at")]
        vilt = any(VILT in f"{case} {row['contestant']}".lower() for row in rivals)
        fits = re.search(headline.pattern, case) and vilt == headline.vilt
        dtypes = {row.get("dtype") for row in rivals}
        if fits and headline.dtype in (None, *dtypes) and any(row["role"] == "ours" for row in rivals):
            cases.append(rivals)
    return cases[: headline.most]


def lines(headline: Headline, rows: list[Row]) -> list[list[str]]:
    """A line for each contestant of ours, the first of them with the case and the others' ratios."""
    first = next((row for row in rows if row["role"] == "reference"), None)
    ours = [row for row in rows if row["role"] == "ours"]
    peers = [row for row in rows if row["role"] == "peer"]
    made = []
    for place, row in enumerate(ours):
        others = [f"{each['contestant']} {written.ratio(each.get('times_faster'))}".strip() for each in peers]
        made.append(
            [
                headline.title if place == 0 else "",
                _case(row) if place == 0 else "",
                _figure(headline, first) if first and place == 0 else "",
                _figure(headline, row),
                written.ratio_with_quartiles(row),
                "; ".join(others) if place == 0 else "",
            ]
        )
    return made


def _case(row: Row) -> str:
    """Shapes and dtype."""
    dtype = row.get("dtype")
    return row["case"] if not dtype or dtype in row["case"] else f"{row['case']}, {dtype}"


def _figure(headline: Headline, row: Row) -> str:
    """Who took how long, or did how many a second."""
    if headline.rate and row.get("per_second") is not None:
        return f"{row['contestant']}: {written.rate(row['per_second'], row.get('item') or 'items')}"
    return f"{row['contestant']}: {written.milliseconds(row['milliseconds']['median'])} ms"
