"""Reports of benchmarks as the suite writes them, with figures like those of two real machines."""

from __future__ import annotations

import copy
from typing import Any

REFERENCE, COMPILED, OURS, PEER, FLOOR = "reference", "reference, compiled", "ours", "peer", "floor"
FAST = "FastPixelBERT"
COPY = "copy of as many bytes"
POOL = "pool_gather [8, 2048, 24, 32], K = 100, float32, channels_last"
EMBED = "pixel_embed [8, 2048, 24, 32] -> 768, project_pool, K = 100, float32, channels_last"
STEP = "step: r50, frozen norm, {}, 2 images of 256 x 320, 4 captions each"
PAIR = "one pair: r50, frozen norm, {}, 1 image of 384 x 512"
PEERS = "one pair, each at its paper's size: float32"
COPY_RATE, MATRIX = 25.3, {"float32": 380.0, "bfloat16": 2100.0}

Entry = tuple[str, str, float]


def times(median: float, *, runs: int = 41) -> dict[str, float]:
    found = {
        "median": median,
        "low": round(median * 0.98, 5),
        "high": round(median * 1.03, 5),
        "fastest": round(median * 0.96, 5),
        "runs": runs,
    }
    return found | ({"p99": round(median * 1.3, 5)} if runs >= 100 else {})


def contest(stage: str, case: str, entries: list[Entry], **fields: Any) -> list[dict]:
    """The rows of a case: (contestant, role, median in ms) each, with what they share as `fields`."""
    moved, flops = fields.get("bytes"), fields.get("flops")
    dtype = fields.get("dtype", "float32")
    runs, copied = fields.pop("runs", 41), fields.pop("copy_rate", COPY_RATE)
    first = next((median for _, role, median in entries if role == REFERENCE), None)
    rows = []
    for who, role, median in entries:
        rival = role in (REFERENCE, OURS, PEER)
        ratio = first / median if rival and first else None
        seconds = median / 1e3
        items = fields.get("items") if rival else None
        wobble = (1.0, 1.0, 1.0, 1.0) if role == REFERENCE else (0.99, 1.0, 1.02, 1.005)
        rows.append(
            {
                "stage": stage,
                "case": case,
                "contestant": who,
                "role": role,
                "dtype": dtype,
                "milliseconds": times(median, runs=runs),
                "times_faster": ratio and float(f"{ratio:.4g}"),
                "ratio_quartiles": ratio and [float(f"{ratio * part:.4g}") for part in (0.97, 1.04)],
                "block_ratios": ratio and [float(f"{ratio * part:.4g}") for part in wobble],
                "items": items,
                "item": fields.get("item") if rival else None,
                "per_second": items and float(f"{items / seconds:.4g}"),
                "peak_bytes": fields.get("peak_bytes"),
                "bytes": moved,
                "flops": flops,
                "of_copy": moved and float(f"{moved / seconds / copied / 1e9:.4g}"),
                "of_matrix": float(f"{flops / seconds / MATRIX[dtype] / 1e9:.4g}") if flops else None,
                "checked": fields.get("checked") if rival and role != REFERENCE else None,
                "whole": None,
                "at": fields.get("at"),
            }
        )
    return rows


def parts(case: str, whole: str, dtype: str, medians: tuple[float, ...]) -> list[dict]:
    names = ("backbone", "pixel embedding", "Transformer", "heads and losses")
    entries = [(name, "part", median) for name, median in zip(names, medians, strict=True)]
    return [row | {"whole": whole} for row in contest("step", case, entries, dtype=dtype, runs=11)]


def of_ops() -> list[dict]:
    draw = [(REFERENCE, REFERENCE, 0.41), ("cpu", OURS, 0.075)]
    rows = contest(
        "ops", "sample_positions 8 x 100 of (12, 16): forward", draw, bytes=3200, flops=0, dtype="int32"
    )
    same = {"checked": "bit-equal to the reference", "peak_bytes": 33_000_000}
    entries = [(REFERENCE, REFERENCE, 6.337), (COMPILED, PEER, 0.938), ("cpu", OURS, 0.918)]
    floor = [(COPY, FLOOR, 1.294)]
    rows += contest("ops", f"{POOL}: forward", entries + floor, bytes=32_768_000, flops=0, **same)
    entries = [(REFERENCE, REFERENCE, 30.75), (COMPILED, PEER, 56.25), ("cpu", OURS, 8.372)]
    floor = [(COPY, FLOOR, 3.692), ("zeros like the features", FLOOR, 11.41)]
    both = "forward + backward"
    rows += contest("ops", f"{POOL}: {both}", entries + floor, bytes=92_900_000, flops=0, **same)
    same = {"checked": "within twice the reference's error against float64"}
    entries = [(REFERENCE, REFERENCE, 56.48), (COMPILED, PEER, 53.48), ("cpu", OURS, 30.55)]
    floor = [(COPY, FLOOR, 1.453), ("the matrix products alone", FLOOR, 26.81)]
    rows += contest(
        "ops", f"{EMBED}: forward", entries + floor, bytes=35_000_000, flops=10_080_000_000, **same
    )
    entries = [(REFERENCE, REFERENCE, 196.2), (COMPILED, PEER, 198.6), ("cpu", OURS, 93.94)]
    floor = [(COPY, FLOOR, 4.965), ("the matrix products alone", FLOOR, 79.05)]
    work = {"bytes": 128_000_000, "flops": 30_240_000_000}
    rows += contest("ops", f"{EMBED}: {both}", entries + floor, **work, **same)
    narrow = EMBED.replace("float32", "bfloat16")
    entries = [(REFERENCE, REFERENCE, 98.1), ("cpu", OURS, 30.2)]
    work = {"bytes": 64_000_000, "flops": 30_240_000_000, "dtype": "bfloat16"}
    return rows + contest("ops", f"{narrow}: {both}", entries, **work, **same)


def of_step() -> list[dict]:
    rows = []
    figures = {
        "float32": (
            (1479.6, 960.9, 1437.4, 328.8, 422.2),
            (458.7, 13.5, 863.1, 134.3),
            (386.5, 9.2, 536.3, 27.6),
        ),
        "bfloat16": (
            (735.2, 426.7, 613.0, 123.8, 102.9),
            (336.7, 9.0, 359.5, 37.4),
            (179.5, 5.6, 232.1, 16.7),
        ),
    }
    for dtype, (whole, theirs, ours) in figures.items():
        names = (REFERENCE, FAST, COMPILED, "the convolutions alone", "the matrix products alone")
        entries = list(zip(names, (REFERENCE, OURS, PEER, FLOOR, FLOOR), whole, strict=True))
        case = STEP.format(dtype)
        same = {"items": 8, "item": "pairs", "flops": 203_000_000_000, "dtype": dtype, "runs": 11}
        rows += contest("step", case, entries, **same, peak_bytes=908_000_000, checked="losses within 1e-4")
        rows += parts(case, REFERENCE, dtype, theirs) + parts(case, FAST, dtype, ours)
    return rows


def of_latency() -> list[dict]:
    prepared = f"{FAST}, compiled for the shape"
    rows = []
    for dtype, each in {
        "float32": (251.3, 193.5, 188.3, 176.5),
        "bfloat16": (208.3, 81.5, 76.0, 65.6),
    }.items():
        names = (REFERENCE, FAST, COMPILED, prepared)
        entries = list(zip(names, (REFERENCE, OURS, PEER, OURS), each, strict=True))
        same = {"items": 1, "item": "pairs", "dtype": dtype, "runs": 120, "flops": 42_000_000_000}
        rows += contest("latency", PAIR.format(dtype), entries, **same, checked="pooled output within 1e-4")
    entries = [
        ("ViltModel (ViLT-B/32), 384 x 512", REFERENCE, 162.3),
        (f"{FAST} r50, 800 x 1066", OURS, 649.7),
        ("ViltModel, compiled", PEER, 153.1),
        (f"{FAST} r50, 384 x 512", OURS, 196.1),
    ]
    return rows + contest("latency", PEERS, entries, items=1, item="pairs")


def of_scaling() -> list[dict]:
    rows = []
    for batch, theirs, ours in ((1, 4.2, 1.15), (2, 8.0, 2.2), (4, 15.8, 4.3), (8, 31.0, 8.5)):
        entries = [(REFERENCE, REFERENCE, theirs), ("cpu", OURS, ours)]
        case = "pool_gather [B, 2048, 24, 32], K = 100, float32: forward + backward"
        rows += contest("scaling", case, entries, at={"batch": batch}, bytes=11_600_000 * batch, flops=0)
    for words, theirs, ours in ((16, 20.0, 14.0), (32, 44.0, 29.0), (64, 120.0, 61.0), (128, 410.0, 130.0)):
        entries = [(REFERENCE, REFERENCE, theirs), (FAST, OURS, ours)]
        work = {"flops": 900_000_000 * words, "bytes": 340_000_000 + 10_000 * words}
        rows += contest("scaling", "Transformer: float32, 8 sequences", entries, at={"words": words}, **work)
    return rows


def cpu_report() -> dict[str, Any]:
    """Every stage of a CPU: ops to scaling, one that failed, and what could not be measured there."""
    copying = contest("ceilings", "copy of 64 MB", [("copy", FLOOR, 5.3)], bytes=134_000_000)
    scored = [
        ("forward a pair", REFERENCE, 1310.0),
        ("cached, padded", PEER, 410.0),
        ("matrix float32", OURS, 101.0),
    ]
    decoded = [("Pillow and NumPy in a DataLoader", REFERENCE, 902.0), ("plain", OURS, 310.0)]
    update = [
        ("torch.optim, two objects", REFERENCE, 770.0),
        ("torch.optim, two objects, fused=True", PEER, 254.0),
        ("ours, fused", OURS, 208.0),
    ]
    engine = [("plain", REFERENCE, 1098.3), ("ZeRO 0", OURS, 1104.3), ("ZeRO 1", OURS, 1463.1)]
    broken = "pool_gather [8, 2048, 24, 32], K = 100, float16: AssertionError: cpu differs from the reference"
    no_gpu = "Anything on a GPU: torch sees none here."
    stages = {
        "ceilings": {"seconds": 6.2, "rows": copying},
        "ops": {"seconds": 93.1, "rows": of_ops(), "failed": [broken]},
        "step": {"seconds": 210.0, "rows": of_step()},
        "latency": {"seconds": 95.0, "rows": of_latency()},
        "retrieval": {
            "seconds": 61.0,
            "rows": contest(
                "retrieval", "4 images x 4 texts, r50, 800 x 1066, float32", scored, items=16, item="pairs"
            ),
        },
        "decoding": {
            "seconds": 40.0,
            "rows": contest(
                "decoding", "64 JPEG files, 640 x 480 to 384 x 512", decoded, items=64, item="images"
            ),
            "not_measured": ["DALI on a GPU: no GPU here."],
        },
        "optimizer": {
            "seconds": 30.0,
            "rows": contest("optimizer", "135 million weights of r50, float32, with clipping", update),
        },
        "engine": {
            "seconds": 88.0,
            "rows": contest("engine", "an update: tiny, float32, frozen norm", engine),
        },
        "scaling": {"seconds": 120.0, "rows": of_scaling(), "not_measured": [no_gpu]},
        "search": {"seconds": 0.0, "not_measured": [no_gpu]},
    }
    return {
        "machine": {
            "device": "Intel(R) Xeon(R) Processor, x86_64, 2 threads",
            "threads": 2,
            "python": "3.11.7",
            "torch": "2.13.0+cpu",
            "transformers": "5.23.0",
        },
        "name": "intel-xeon-avx512-2-threads",
        "date": "2026-11-23",
        "revision": "0123abc",
        "command": "make bench",
        "ceilings": {"copy_gigabytes_per_second": COPY_RATE, "matrix_gigaflops_per_second": dict(MATRIX)},
        "stages": stages,
    }


def gpu_report() -> dict[str, Any]:
    """The stages of a GPU: those without rows, and two with."""
    case = "pool_gather [64, 2048, 25, 33], K = 100, bfloat16, channels_last"
    entries = [
        (REFERENCE, REFERENCE, 1.9),
        (COMPILED, PEER, 0.52),
        ("cuda", OURS, 0.31),
        ("triton", OURS, 0.33),
        (COPY, FLOOR, 0.29),
    ]
    rows = contest(
        "ops",
        f"{case}: forward + backward",
        entries,
        copy_rate=2850.0,
        bytes=820_000_000,
        flops=0,
        dtype="bfloat16",
    )
    goal = {
        "case": case,
        "pass": "forward + backward",
        "best": "cuda",
        "of_copy_bandwidth": 0.935,
        "times_eager": 6.13,
        "times_compiled": 1.677,
    }
    found = {
        "kernel": "pool_gather_forward",
        "variant": "channels_last",
        "sizes": [2048],
        "dtype": "torch.bfloat16",
        "fastest": "block 256, warps 4",
        "default": "block 128, warps 4",
    }
    tested = [
        {"op": "pool_gather", "backend": "cuda", "status": "passed", "detail": "24 cases"},
        {"op": "pixel_embed", "backend": "triton", "status": "failed", "detail": "off by 0.1 | 2"},
    ]
    return {
        "machine": {
            "device": "NVIDIA H100 80GB HBM3",
            "threads": 16,
            "python": "3.11.7",
            "torch": "2.13.0",
            "cuda": "13.0",
            "triton": "3.9.0",
        },
        "name": "nvidia-h100-80gb-hbm3",
        "date": "2026-11-24",
        "revision": "0123abc, changed",
        "command": "make gpu-report",
        "ceilings": {
            "copy_gigabytes_per_second": 2850.0,
            "matrix_gigaflops_per_second": {"float32": 45e3, "bfloat16": 680e3},
        },
        "stages": {
            "build": {"seconds": 41.0, "record": {"cuda": "built for 9.0", "cpu": "built"}},
            "selftest": {"seconds": 20.0, "results": tested, "failed": ["off by 0.1 | 2"]},
            "tests": {"seconds": 62.0, "outcome": "120 passed, 3 skipped"},
            "ops": {"seconds": 80.0, "rows": rows},
            "step": {"seconds": 150.0, "rows": [], "failed": ["stopped after 150 s"]},
            "search": {"seconds": 30.0, "found": [found]},
        },
        "goals": [goal],
    }


def changed(
    report: dict, *, stage: str, contestant: str, case: str = "", factor: float = 1.0, **fields: Any
) -> dict:
    """A copy in which rows of one contestant take `factor` times as long, and have `fields`."""
    made = copy.deepcopy(report)
    found = [
        row
        for row in made["stages"][stage]["rows"]
        if row["contestant"] == contestant and case in row["case"] and row["role"] != "part"
    ]
    assert found, (stage, contestant, case)
    for row in found:
        row["milliseconds"] |= {
            name: value * factor for name, value in row["milliseconds"].items() if name != "runs"
        }
        if row["times_faster"] is not None:
            row["times_faster"] /= factor
            row["ratio_quartiles"] = [value / factor for value in row["ratio_quartiles"]]
            row["block_ratios"] = row["block_ratios"] and [value / factor for value in row["block_ratios"]]
        row |= fields
    return made
