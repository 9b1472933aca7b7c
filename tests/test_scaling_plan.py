"""The projection of pre-training: its arithmetic by hand, what it reads of a report, and the stored page."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.training import plan_memory

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import scaling_inputs  # noqa: E402
import scaling_model  # noqa: E402
import scaling_plan  # noqa: E402
from scaling_model import Conditions, Range  # noqa: E402

STEP = {
    "stage": "step",
    "case": "step: r50, frozen norm, bfloat16, 2 images of 256 x 320, 4 captions each",
    "contestant": "FastPixelBERT",
    "role": "ours",
    "dtype": "bfloat16",
    "milliseconds": {"median": 500.0, "low": 400.0, "high": 800.0, "fastest": 390.0, "runs": 8},
    "items": 8,
    "item": "pairs",
    "per_second": 16.0,
    "bytes": None,
    "flops": 200_000_000_000,
    "of_copy": None,
    "of_matrix": 0.4,
    "checked": "losses within 1e-2",
}
REPORT = {
    "machine": {"device": "A processor, x86_64, 2 threads", "threads": 2},
    "name": "a-processor",
    "date": "2026-11-01",
    "revision": "0123abc",
    "command": "make bench",
    "ceilings": {
        "copy_gigabytes_per_second": 20.0,
        "matrix_gigaflops_per_second": {"float32": 400.0, "bfloat16": 1000.0},
    },
    "stages": {"step": {"seconds": 1.0, "rows": [STEP]}},
}
NO_GPU = "No GPU was measured"


def report(device: str | None = None, **changes: list[dict]) -> dict:
    """`REPORT` on another device, with other rows by stage."""
    made = copy.deepcopy(REPORT)
    if device:
        made["machine"] |= {"device": device, "cuda": "13.0"}
    for stage, rows in changes.items():
        made["stages"][stage] = {"seconds": 1.0, "rows": rows}
    return made


def written(folder: Path, name: str, made: dict) -> Path:
    path = folder / name
    path.write_text(json.dumps(made), encoding="utf-8")
    return path


def given(**changes) -> Conditions:
    same = {
        "rate": Range(1e12, 2e12),
        "bandwidth": Range(1e9, 1e9),
        "nvlink": Range(50e9, 100e9),
        "network": Range(5e9, 10e9),
        "cores": 10.0,
        "file": 0.0,
        "pixel": 0.0,
    }
    return Conditions(**{**same, **changes})


def made_plan(gpus: int, passes: int = 2) -> dict:
    """A model of 10^9 numbers, half of them the backbone's, and 8 TFLOP an update of all GPUs."""
    counts = plan_memory.Parameters(10**9, 10**9, 0, 0, 0)
    stages = {
        str(stage): {
            "parts": {},
            "total": 0,
            "most_images": 1,
            "traffic_per_step": plan_memory.traffic(counts, stage, gpus, passes),
            "collectives_per_step": plan_memory.collectives(counts, stage, passes)._asdict(),
        }
        for stage in range(4)
    }
    return {
        "machine": {"gpus": gpus},
        "parameters": {"backbone": 5 * 10**8, "trained": 10**9},
        "batch": {"accumulation": passes, "images_per_batch": 4},
        "flops_per_step": {"backbone": 5e12, "encoder": 3e12},
        "image": {"typical": (10, 20)},
        "memory": stages,
        "steps": 3600,
    }


def test_rings_send_what_a_ring_does():
    # Seven eighths of 8 GB at 100 GB/s; then half of its own GB at 10 GB/s to the other machine.
    assert scaling_model.ring_seconds(8e9, 8, 8, 100e9, 10e9) == pytest.approx(0.07)
    assert scaling_model.ring_seconds(8e9, 16, 8, 100e9, 10e9) == pytest.approx(0.07 + 0.05)
    assert scaling_model.ring_seconds(8e9, 1, 8, 100e9, 10e9) == 0
    # An all-reduce is two of them: 2 (n - 1)/n of its bytes, as the plan says.
    counts = plan_memory.Parameters(1000, 1000, 0, 0, 0)
    by_bytes = scaling_model.ring_seconds(2 * 4000, 8, 8, 1.0, 1.0)
    assert by_bytes == plan_memory.traffic(counts, 0, 8, 1) == 7000
    with pytest.raises(ValueError, match="12 GPUs are no whole machines of 8"):
        scaling_model.ring_seconds(8e9, 12, 8, 100e9, 10e9)


def test_communication_hides_as_far_as_there_is_work():
    assert scaling_model.exposed(3.0, 1.0, 2.0) == (2.0, 4.0)
    assert scaling_model.exposed(1.0, 1.0, 2.0) == (1.0, 2.0)


def test_a_share_is_carried_by_products_or_by_bytes():
    peak, bandwidth = scaling_model.peak("H100"), scaling_model.SHEETS["H100"].bandwidth
    assert peak == 989e12
    balance = bandwidth / peak
    assert scaling_model.carried_rate(0.4, 2, balance, "H100") == pytest.approx((0.4 * peak, 0.4 * peak))
    # A machine with twice the bytes for a FLOP: bound by them, the GPU is half as good.
    assert scaling_model.carried_rate(0.4, 2, 2 * balance, "H100") == pytest.approx((0.2 * peak, 0.4 * peak))
    # In float32 it moved twice the bytes that bf16 does.
    assert scaling_model.carried_rate(0.4, 4, 4 * balance, "H100") == pytest.approx((0.2 * peak, 0.4 * peak))
    # Never better than its own share.
    assert scaling_model.carried_rate(0.4, 2, balance / 2, "H100") == pytest.approx((0.4 * peak, 0.4 * peak))


def test_an_update_by_hand():
    one = scaling_model.project(made_plan(1), 0, given())
    # 8 TFLOP at 2 and at 1 TFLOP/s; 12 + 16 GB at 1 GB/s; nobody to talk to.
    assert one.compute == (4.0, 8.0)
    assert one.optimizer == (28.0, 28.0)
    assert one.exposed == one.data == (0.0, 0.0)
    assert one.seconds == (32.0, 36.0)
    assert one.hours == one.seconds  # 3,600 updates
    assert scaling_model.efficiency(one, one) == (1.0, 1.0)

    stages = [scaling_model.project(made_plan(8), stage, given()) for stage in range(4)]
    assert all(step.compute == (0.5, 1.0) for step in stages)
    assert [step.optimizer.low for step in stages] == [28.0, 3.5, 3.5, 3.5]
    # Volumes of 4 GB take 0.035 s each at 100 GB/s and 0.07 at 50. Of stage 0 two, none hidden; of 1 two
    # within 2/3 x 1/2 of a pass and one after; of 2 four beside it, of 3 four and none after.
    assert [step.exposed for step in stages] == [
        pytest.approx(ends) for ends in ((0.07, 0.14), (0.035, 0.21), (0.035, 0.35), (0.0, 0.28))
    ]
    gain = scaling_model.efficiency(one, stages[0])
    assert gain == pytest.approx((32 / (8 * 28.57), 36 / (8 * 29.14)), rel=1e-12)


def test_what_cannot_be_hidden_in_the_backward_is_waited_for():
    slow = given(nvlink=Range(5e9, 5e9))
    # A volume takes 0.7 s. The backward of one of two passes is 2/3 x 0.25 s long.
    step = scaling_model.project(made_plan(8), 1, slow)
    assert step.exposed.low == pytest.approx(0.7 + 1.4 - 0.5 / 3)
    assert scaling_model.project(made_plan(8), 2, slow).exposed.low == pytest.approx(0.7 + 2.8 - 1 / 3)
    assert scaling_model.project(made_plan(8), 3, slow).exposed.low == pytest.approx(2.8 - 0.5)


def test_decoding_that_is_slower_than_the_rest_is_waited_for():
    # 8 images an update, of 1 s and 200 pixels of 0.02 s each: 40 s of one core, of 32 and 36 s of the rest.
    slow = given(file=1.0, pixel=0.02, cores=1.0)
    step = scaling_model.project(made_plan(1), 0, slow)
    assert step.seconds == pytest.approx((40.0, 40.0))
    assert step.data == pytest.approx((8.0, 4.0))
    assert step.cores == pytest.approx((40 / 36, 40 / 32))
    assert scaling_model.project(made_plan(1), 0, slow._replace(cores=2.0)).data == (0.0, 0.0)


@pytest.mark.parametrize(("gpus", "images", "passes"), [(1, 64, 16), (8, 64, 2), (64, 16, 1)])
def test_an_update_is_the_papers_batch_on_any_number_of_gpus(gpus, images, passes):
    made = scaling_model.planned("pretrain_r50_80gb", gpus, 80.0)
    batch = made["batch"]
    assert (batch["images_per_batch"], batch["accumulation"]) == (images, passes)
    assert batch["pairs_per_step"] == gpus * images * passes * 4 == 4096
    assert {one["source"] for one in made["sets"]} == {"published"}


def test_the_step_nearest_to_pre_training_is_taken():
    narrow = STEP | {"dtype": "float32", "flops": 900_000_000_000}
    slower = STEP | {"contestant": "cpu", "milliseconds": STEP["milliseconds"] | {"median": 600.0}}
    smaller = STEP | {"contestant": "smaller", "flops": 1}
    other = STEP | {"case": "step: x152, frozen norm", "contestant": "x152"}
    peer = STEP | {"role": "peer", "flops": 9**15}
    made = report(step=[narrow, slower, smaller, STEP, other, peer])
    assert scaling_inputs.step_row(made, "r50", "H100") == STEP
    assert scaling_inputs.step_row(made, "x152", "H100") == other
    assert scaling_inputs.step_row(report(step=[narrow, other]), "r50", "H100") == narrow


def test_inputs_of_a_cpu_and_of_a_gpu():
    peak = 989e12
    found = scaling_inputs.read(REPORT, "H100")
    balance = (3.35e12 / peak) / (20 / 1000)
    assert not found.measured
    assert found.rate["r50"] == pytest.approx((0.4 * peak * balance, 0.4 * peak))
    assert found.rate["x152"] == found.rate["r50"]
    assert found.optimizer == (0.5, 1.0)

    decoding = STEP | {"stage": "decoding", "case": "decoding", "item": "images", "per_second": 1000.0}
    optimizer = STEP | {"stage": "optimizer", "of_copy": 0.8}
    step = STEP | {"of_matrix": None}  # nothing is carried over
    measured = report(
        "NVIDIA H100 80GB HBM3, 132 SMs", step=[step], decoding=[decoding], optimizer=[optimizer]
    )
    found = scaling_inputs.read(measured, "H100")
    assert found.measured
    # 200 GFLOP in 0.8 and in 0.4 s.
    assert found.rate["r50"] == pytest.approx((250e9, 500e9))
    assert found.optimizer == (0.8, 1.0)
    assert (
        "docs/results/data.md" in found.decoding_by
    )  # not the cores beside that GPU: a page must not mix them
    with pytest.raises(UserError, match='no row of stage "step"'):
        scaling_inputs.read(measured, "A100")
    elsewhere = scaling_inputs.read(report("NVIDIA H100 80GB HBM3"), "A100")
    assert not elsewhere.measured
    assert elsewhere.rate["r50"].high == pytest.approx(0.4 * 312e12)

    found = scaling_inputs.read(report(decoding=[decoding]), "H100")
    # 2 ms of two threads, 0.45 of them resizing.
    assert found.file == pytest.approx(1.55e-3)
    assert found.pixel == pytest.approx(0.45e-3 / (384 * 512))


def test_the_newest_report_is_a_gpus_if_there_is_one(tmp_path):
    assert scaling_inputs.newest(tmp_path) is None
    written(tmp_path, "old.json", {"rows": [], "machine": {}})
    assert scaling_inputs.newest(tmp_path) is None
    written(tmp_path, "quick.json", report() | {"date": "2026-12-03", "command": "make bench --quick"})
    assert scaling_inputs.newest(tmp_path) is None
    written(tmp_path, "a.json", report() | {"date": "2026-12-01"})
    newer = written(tmp_path, "b.json", report() | {"date": "2026-12-02"})
    assert scaling_inputs.newest(tmp_path) == newer
    written(tmp_path, "failed.json", report("NVIDIA H100 80GB HBM3", step=[]))
    assert scaling_inputs.newest(tmp_path) == newer
    (tmp_path / "failed.json").unlink()
    gpu = written(tmp_path, "c.json", report("NVIDIA H100 80GB HBM3"))
    assert scaling_inputs.newest(tmp_path) == gpu


def test_the_page_says_whether_a_gpu_was_measured(tmp_path):
    options = scaling_plan.parsed([])
    projected = scaling_plan.page(written(tmp_path, "cpu.json", report()), options)
    assert NO_GPU in projected
    assert "`results/cpu.json`" in projected
    rows = [line for line in projected.splitlines() if line.startswith("| 64 |")]
    assert len(rows) == 2 * 2 * 4  # times and memory of two presets under four stages
    measured = scaling_plan.page(written(tmp_path, "gpu.json", report("NVIDIA H100 80GB HBM3")), options)
    assert NO_GPU not in measured
    long = [line for line in projected.splitlines() if len(line) > 120 and not line.startswith("|")]
    assert not long


def test_slower_links_make_a_slower_page(tmp_path, capsys):
    path = written(tmp_path, "cpu.json", report())
    pages = []
    for arguments in ([], ["--network-gbs", "1"], ["--gpu", "A100"], ["--cores", "0.5"]):
        scaling_plan.main(["--results", str(path), *arguments])
        pages.append(capsys.readouterr().out)
    assert len(set(pages)) == 4
    assert "1 GB/s each way and GPU, as given" in pages[1]
    assert "at the low end it makes up" in pages[3]


def test_what_makes_no_sense_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit, match="there is no file"):
        scaling_plan.main(["--results", str(tmp_path / "none.json")])
    with pytest.raises(SystemExit, match="is no report of `make bench`"):
        scaling_plan.main(["--results", str(written(tmp_path, "old.json", {"rows": []}))])
    with pytest.raises(SystemExit, match='no row of stage "step"'):
        scaling_plan.main(["--results", str(written(tmp_path, "empty.json", report(step=[])))])
    with pytest.raises(SystemExit):
        scaling_plan.main(["--cores", "0"])
    assert "--cores must be above 0, and is 0" in capsys.readouterr().err


def test_the_stored_page_is_that_of_the_stored_report():
    """`python benchmarks/scaling_plan.py --write` makes it anew; without a report there is none."""
    path = scaling_inputs.newest()
    stored = scaling_plan.PAGE.read_text(encoding="utf-8") if scaling_plan.PAGE.is_file() else None
    assert stored == (path and scaling_plan.page(path, scaling_plan.parsed([])))
