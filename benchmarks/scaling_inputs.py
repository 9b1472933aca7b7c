"""What `scaling_plan.py` takes from a stored report of the suite, and from which of its rows."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import scaling_model
import stored
from scaling_model import LEAST_SHARE, SHEETS, Range

from pixelbert_fast.errors import UserError

DEFAULT_GPU = "H100"
WIDTHS = {"bfloat16": 2, "float32": 4}
# docs/results/data.md, where no report has decoding: 256 JPEGs of 640 x 480 to 512 x 384, two threads.
DECODED = (384, 512)
DECODING_COMMAND = "python benchmarks/bench_decoding.py --images 256 --rounds 7"
DECODING_RATE, DECODING_THREADS = 1101.0, 2
# The same page: from the picture's pixels to the model's; the rest is the file's, whatever the model's size.
RESIZING_SECONDS = 0.45e-3


class Inputs(NamedTuple):
    """Measured figures, each with words that say where it stands.

    Attributes:
        rate: FLOP/s of a GPU by preset; `rate_by` says how.
        measured: whether the step's time is a GPU's own.
        optimizer: the share of the memory's bandwidth that an update reaches.
        file, pixel: CPU seconds to decode an image, and to write one pixel of what the model reads.
    """

    rate: dict[str, Range]
    rate_by: dict[str, str]
    measured: bool
    optimizer: Range
    optimizer_by: str
    file: float
    pixel: float
    decoding_by: str


def newest(folder: Path = stored.RESULTS) -> Path | None:
    """The newest report of a GPU that says how long a step takes, else of a CPU; None: there is none."""
    for kind in ("gpu", "cpu"):
        path = stored.newest(kind, folder)
        if path is not None:
            report = stored.read(path)
            if step_row(report, "r50", gpu_of(report) or DEFAULT_GPU):
                return path
    return None


def gpu_of(report: stored.Report) -> str | None:
    """The GPU of `SHEETS` that a report was measured on; None: another one, or a CPU."""
    words = str(report["machine"]["device"]).replace(",", " ").split()
    return next((name for name in SHEETS if name in words), None)


def ours(report: stored.Report, stage: str) -> list[stored.Row]:
    return [row for row in stored.rows_of(report, stage) if row["role"] == "ours"]


def step_row(report: stored.Report, preset: str, gpu: str) -> stored.Row | None:
    """Our step that is nearest to pre-training: in bf16 if there is one, with the most FLOPs, the fastest.

    Of another machine than `gpu` its share of the matrix rate is needed, too.
    """
    for dtype in WIDTHS:
        found = [
            row
            for row in ours(report, "step")
            if row["dtype"] == dtype
            and row["flops"]
            and (row["of_matrix"] or gpu_of(report) == gpu)
            and row["case"].startswith(f"step: {preset},")
        ]
        if found:
            return max(found, key=lambda row: (row["flops"], row["flops"] / row["milliseconds"]["median"]))
    return None


def rate(report: stored.Report, row: stored.Row, gpu: str) -> tuple[Range, str]:
    """FLOP/s that a step like `row`'s gets done on `gpu`, and words that say how that is known."""
    took, where = row["milliseconds"], f"`{row['case']}`, {row['contestant']}"
    if gpu_of(report) == gpu:
        measured = Range(*(row["flops"] / took[end] * 1e3 for end in ("high", "low")))
        return measured, f"measured: {where}, {took['median']:.4g} ms"
    copy = report["ceilings"]["copy_gigabytes_per_second"]
    matrix = report["ceilings"]["matrix_gigaflops_per_second"][row["dtype"]]
    found = scaling_model.carried_rate(row["of_matrix"], WIDTHS[row["dtype"]], copy / matrix, gpu)
    peak = scaling_model.peak(gpu)
    return found, (
        f"{where}: {took['median']:.4g} ms, {100 * row['of_matrix']:.1f} % of that machine's matrix rate"
        f" of {matrix:,.0f} GFLOP/s; it copies {copy:g} GB/s, {1e3 * copy / matrix:.2g} bytes for 1,000"
        f" FLOP, and the {gpu} {1e3 * SHEETS[gpu].bandwidth / peak:.2g} by its data sheet. So"
        f" {100 * found.low / peak:.1f} to {100 * found.high / peak:.1f} % of the peak of {peak / 1e12:g}"
        " TFLOP/s"
    )


def read(report: stored.Report, gpu: str) -> Inputs:
    """What the report has to say for `gpu`.

    Raises:
        UserError: it has no step of ours with its share of the matrix rate.
    """
    own = {preset: step_row(report, preset, gpu) for preset in ("r50", "x152")}
    if own["r50"] is None:
        raise UserError(
            'the report has no row of stage "step", role "ours", preset r50 with `flops` and `of_matrix`;'
            " run make bench, or give another report by --results"
        )
    found, words = {}, {}
    for preset, row in own.items():
        found[preset], words[preset] = rate(report, row or own["r50"], gpu)
        if row is None:
            words[preset] = "not measured; r50's is taken"
    optimizer, optimizer_by = _optimizer(report)
    file, pixel, decoding_by = _decoding(report)
    measured = gpu_of(report) == gpu
    return Inputs(found, words, measured, optimizer, optimizer_by, file, pixel, decoding_by)


def _optimizer(report: stored.Report) -> tuple[Range, str]:
    shares = [row["of_copy"] for row in ours(report, "optimizer") if row["of_copy"]]
    if not shares:
        return Range(LEAST_SHARE, 1.0), f"{100 * LEAST_SHARE:.0f} to 100 % of the data sheet's, assumed"
    share = min(max(shares), 1.0)
    return Range(share, 1.0), (
        f"{100 * share:.0f} % of the data sheet's, the share of a copy's rate that an update reaches on the"
        " machine of the report, to 100 %"
    )


def _decoding(report: stored.Report) -> tuple[float, float, str]:
    best = max(
        (row for row in ours(report, "decoding") if row["per_second"] and row["item"] == "images"),
        key=lambda row: row["per_second"],
        default=None,
    )
    if best is None or gpu_of(report) is not None:
        images, threads, by = DECODING_RATE, DECODING_THREADS, f"docs/results/data.md: `{DECODING_COMMAND}`"
    else:
        images, threads = best["per_second"], report["machine"]["threads"]
        by = f"`{best['case']}`, {best['contestant']}"
    an_image = threads / images
    resizing = min(RESIZING_SECONDS, an_image)
    pixel = resizing / (DECODED[0] * DECODED[1])
    return an_image - resizing, pixel, f"{by}: {images:,.0f} images/s by {threads} threads"
