"""Each contest of the benchmarks on small sizes: who takes part, as what, and that wrong results stop it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import bench_decoding  # noqa: E402 - needs the path above
import bench_engine  # noqa: E402
import bench_model  # noqa: E402
import bench_optimizer  # noqa: E402
import bench_retrieval  # noqa: E402
import bench_scaling  # noqa: E402
import contest  # noqa: E402
import model_contests  # noqa: E402
import op_contests  # noqa: E402
import scaling_series  # noqa: E402
import scaling_tables  # noqa: E402
from rows import OURS, PEER, REFERENCE, Row  # noqa: E402

from pixelbert_fast.errors import UserError  # noqa: E402
from pixelbert_fast.ops import split_linear  # noqa: E402
from pixelbert_fast.training import deepspeed_engine  # noqa: E402

FEW = {"rounds": 5, "seconds": 0.0}
NARROW = {
    "backbone_channels": 8,
    "backbone_depths": [1, 1, 1, 1],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1100,
    # So narrow a model's scores hardly differ by BERT's 0.02.
    "initializer_range": 0.2,
}
SCORED = {"images": 2, "texts": 3, "height": 64, "width": 128, "sequences": 4, "forwards": 1}


@pytest.fixture(autouse=True)
def one_thread():
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(kept)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that comes to timing anything."""
    for module in (contest, bench_engine):
        monkeypatch.setattr(module, "take_turns", lambda *_, **__: pytest.fail("something was timed"))


def roles(rows: list[Row]) -> dict[str, str]:
    """By contestant; every row is checked and has a positive time and ratio."""
    for row in rows:
        found = row.as_dict()
        assert found["milliseconds"]["median"] > 0 and found["milliseconds"]["runs"] == 5
        assert found["times_faster"] > 0 and bool(found["checked"]) == (row.role != REFERENCE)
    return {row.contestant: row.role for row in rows}


def test_retrieval_compares_rates_of_scoring() -> None:
    rows, not_measured = bench_retrieval.contests("cpu", **SCORED, **FEW, overrides=NARROW)
    amx = split_linear.why_not() is None
    ours = ["matrix fp32", "matrix bf16x2", "matrix bf16"] if amx else ["matrix fp32", "matrix bf16"]
    assert roles(rows) == {
        "forward a pair": REFERENCE,
        "cached, padded": PEER,
        **dict.fromkeys(ours, OURS),
    }
    assert len(not_measured) == (0 if amx else 1)
    by_name = {row.contestant: row for row in rows}
    first, exact = by_name["forward a pair"], by_name["matrix fp32"]
    assert (first.items, exact.items) == (1, 6)
    assert exact.times_faster == pytest.approx(6 * first.timing.median / exact.timing.median)
    assert exact.work.flops // 6 == first.work.flops > 0
    assert by_name["matrix bf16"].dtype == "bfloat16" and exact.dtype == "float32"


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("wrong", ["fp32", "bf16"])
def test_wrong_scores_are_not_timed(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    scored = bench_retrieval.score_matrix

    def turned(scorer, texts, pixels, *, options):
        found = scored(scorer, texts, pixels, options=options)
        return found[::-1].copy() if options.precision == wrong else found

    monkeypatch.setattr(bench_retrieval, "score_matrix", turned)
    with pytest.raises(AssertionError):
        bench_retrieval.contests("cpu", **SCORED, **FEW, overrides=NARROW)


def test_decoding_is_timed_by_the_clock_and_by_what_it_takes_of_the_cores() -> None:
    rows, not_measured = bench_decoding.contests("cpu", images=2, batch=1, threads=1, **FEW)
    found = roles(rows)
    assert found.pop(bench_decoding.ORDINARY) == REFERENCE
    missing = [name for name in bench_decoding.choice.DECODERS if name not in found]
    assert "plain" in found and set(found.values()) == {OURS}
    assert [any(name in sentence for sentence in not_measured) for name in missing] == [True] * len(missing)
    by_clock, worked = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    assert all(row.case == f"{by_clock[0].case}: processor time" for row in worked)
    assert all("grey levels" in row.checked for row in rows if row.role != REFERENCE)
    assert all(row.items == 2 for row in rows)


@pytest.mark.usefixtures("untimed")
def test_images_too_far_from_the_processor_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def contestants(encoded, *_):
        images = torch.stack([bench_decoding.PROCESSOR.pixels(each) for each in encoded])
        return {bench_decoding.ORDINARY: lambda: iter([images]), "plain": lambda: iter([images + 0.1])}

    monkeypatch.setattr(bench_decoding, "contestants", contestants)
    with pytest.raises(AssertionError, match="plain"):
        bench_decoding.contests("cpu", images=2, batch=2, threads=1, **FEW)


def test_the_optimisers_move_the_bytes_that_they_must() -> None:
    rows, not_measured = bench_optimizer.contests("cpu", preset="tiny", share=0.2, **FEW)
    assert not_measured == []
    assert roles(rows) == {
        bench_optimizer.FIRST: REFERENCE,
        bench_optimizer.FUSED: PEER,
        "ours, step by step": OURS,
        "ours, fused": OURS,
    }
    weights = bench_optimizer.Weights("tiny", 0.2, "cpu")
    backbone = sum(shape.numel() for name, shape in weights.shapes.items() if ".backbone." in name)
    others = weights.count() - backbone
    assert backbone > 0 and others > 0
    plain, clipped = rows[0].work.bytes, rows[-1].work.bytes
    # Read weight, gradient, momentum, write weight, momentum; and the second moment both ways.
    assert plain == 4 * (5 * backbone + 7 * others)
    assert clipped == plain + 4 * weights.count()


@pytest.mark.usefixtures("untimed")
def test_a_wrong_update_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = bench_optimizer.ours

    def wrong(weights, *, fused, clip):
        holder, step = ours(weights, fused=fused, clip=clip)
        next(holder.parameters()).add_(1e-5)
        return holder, step

    monkeypatch.setattr(bench_optimizer, "ours", wrong)
    with pytest.raises(AssertionError, match="ours, step by step differs"):
        bench_optimizer.contests("cpu", preset="tiny", share=0.2, **FEW)


@pytest.mark.slow
def test_the_engines_take_turns_in_one_process(tmp_path: Path) -> None:
    """Apart from this process, which DeepSpeed would change for good."""
    script = f"""
import sys
sys.path[:0] = [{str(ROOT / "benchmarks")!r}, {str(ROOT)!r}]
import json, torch, bench_engine
torch.set_num_threads(1)
bench_engine.MODELS["tiny"] = (2, 48, 2, 12)
rows, not_measured = bench_engine.contests("cpu", stages=(0, 3), rounds=5, seconds=0.0)
page = bench_engine.page(rows, "0.0") if rows else ""
print(json.dumps([[row.as_dict() for row in rows], not_measured, page]))
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    rows, not_measured, page = json.loads(ran.stdout.splitlines()[-1])
    if not rows:  # no DeepSpeed here, or a GPU that it would take
        assert len(not_measured) == 1 and "DeepSpeed" in not_measured[0]
        return
    assert [(row["contestant"], row["role"]) for row in rows] == [
        ("plain", REFERENCE),
        ("ZeRO 0", OURS),
        ("ZeRO 3", OURS),
    ]
    assert all(row["milliseconds"]["runs"] == 5 and row["times_faster"] > 0 for row in rows)
    assert all("losses within" in row["checked"] for row in rows[1:])
    assert "| plain |" in page and "%" in page


def test_without_deepspeed_the_engines_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing():
        raise UserError("DeepSpeed cannot be imported")

    monkeypatch.setattr(deepspeed_engine, "import_deepspeed", missing)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows, not_measured = bench_engine.contests("cpu")
    assert rows == [] and not_measured == ["DeepSpeed beside the plain loop: DeepSpeed cannot be imported"]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Plain engines in DeepSpeed's place, and a small batch: the real ones are in the slow test."""
    monkeypatch.setattr(deepspeed_engine, "import_deepspeed", lambda: None)
    monkeypatch.setattr(deepspeed_engine, "join", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        bench_engine, "zero_engine", lambda model, *_: bench_engine.plain_engine(model, "cpu")
    )
    monkeypatch.setitem(bench_engine.MODELS, "tiny", (2, 48, 2, 12))
    return monkeypatch


@pytest.mark.usefixtures("stand_in")
def test_engines_are_compared_with_the_plain_one() -> None:
    rows, not_measured = bench_engine.contests("cpu", stages=(0,), **FEW, processor_time=True)
    assert roles(rows) == {"plain": REFERENCE, "ZeRO 0": OURS} and not_measured == []
    assert all(row.case.endswith(", processor time") and row.items == 4 for row in rows)
    over = bench_engine.overheads(rows)
    assert over[rows[0].case, "plain"] == (0.0, 0.0, 0.0)
    page = bench_engine.page(rows, "0.0")
    assert "| ZeRO 0 |" in page and f"{over[rows[0].case, 'ZeRO 0'][0]:+.1f} %" in page


@pytest.mark.usefixtures("untimed")
def test_an_engine_of_other_losses_is_not_timed(stand_in: pytest.MonkeyPatch) -> None:
    def other(model, *_):
        with torch.no_grad():
            model.itm_head.bias[0] += 0.1
        return bench_engine.plain_engine(model, "cpu")

    stand_in.setattr(bench_engine, "zero_engine", other)
    with pytest.raises(AssertionError, match="ZeRO 0: losses differ"):
        bench_engine.contests("cpu", stages=(0,), **FEW)


def test_a_series_has_rows_at_each_size_and_slopes() -> None:
    names = ("sample_positions", "step against batch")
    rows, not_measured = bench_scaling.contests("cpu", series=names, values=2, **FEW)
    assert not_measured == []
    by_series: dict[str, list[Row]] = {}
    for row in rows:
        by_series.setdefault(row.case, []).append(row)
    places, steps = by_series.values()
    assert roles(steps) == {"reference": REFERENCE, "FastPixelBERT": OURS}
    assert roles(places)["reference"] == REFERENCE
    assert [row.at for row in steps] == [{"batch": 2}] * 2 + [{"batch": 4}] * 2
    # A step's work grows with its images, but for how many words of each happen to be masked.
    ((_, size), series) = next(iter(scaling_tables.series_of([row.as_dict() for row in steps]).items()))
    ours = next(each for each in scaling_tables.growths(series) if each.contestant == "FastPixelBERT")
    assert ours.work == pytest.approx(1.0, abs=0.05)
    assert (size, ours.of) == ("batch", "flops")


def test_every_size_has_a_series_on_every_device() -> None:
    for device in ("cpu", "cuda"):
        series = scaling_series.all_series(device)
        assert {each.size for each in series} == {"batch", "K", "captions", "pixels", "words", "sequences"}
        assert len({each.name for each in series}) == len(series)
        assert all(list(each.values) == sorted(set(each.values)) for each in series)


def test_series_that_there_is_no_time_for_are_told() -> None:
    rows, not_measured = bench_scaling.contests("cpu", series=("step against",), limit=-1.0)
    assert rows == [] and len(not_measured) == 5


@pytest.mark.parametrize("size", ["pixels", "words", "sequences"])
def test_reading_grows_with_each_of_its_sizes(size: str) -> None:
    """By the smallest preset: the series' own is as large as the paper's."""
    case = scaling_series.model_contests.Case(preset="tiny", images=1, captions=1, height=48, width=48)
    models = scaling_series.model_contests.pair(case)
    series = scaling_series.reading(case, size, (16, 48), lambda: models)
    small, large = (series.point(value) for value in series.values)
    for point in (small, large):
        point.verify()
    assert small.work().flops < large.work().flops
    assert (small.size, large.size) == ((256, 2304) if size == "pixels" else (16, 48))


@pytest.mark.usefixtures("untimed")
def test_a_wrong_op_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = op_contests.contestants

    def contestants(case, values, *, compiled):
        runs = right(case, values, compiled=compiled)
        return runs | {"cpu": lambda: runs[op_contests.REFERENCE]() + 1}

    monkeypatch.setattr(op_contests, "contestants", contestants)
    with pytest.raises(AssertionError):
        bench_scaling.contests("cpu", series=("sample_positions",), values=1, **FEW)


@pytest.mark.usefixtures("untimed")
def test_a_wrong_model_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    models = scaling_series.model_contests
    right = models.pair

    def pair(case):
        found = right(replace(case, height=48, width=48))
        with torch.no_grad():
            found[models.FAST].mlm_head.bias[0] += 1
        return found

    monkeypatch.setattr(models, "pair", pair)
    with pytest.raises(AssertionError, match="is off by"):
        bench_scaling.contests("cpu", series=("step against batch",), values=1, **FEW)


def test_other_ways_of_a_step_are_found_right_too() -> None:
    case = model_contests.Case("tiny", images=1, height=64, width=64, captions=2, pixels=4)
    models, given = model_contests.pair(case), model_contests.batch(case)
    fast = models[model_contests.FAST]
    ways = bench_model.variants(fast, compiles=False)
    entered = models | dict.fromkeys(ways, fast)
    model_contests.verify(case, entered, given, ways)

    @contextmanager
    def wrong():
        weight = next(fast.itm_head.parameters())
        weight.data *= 1.1
        yield

    with pytest.raises(AssertionError, match="activation checkpointing"):
        model_contests.verify(case, entered, given, dict.fromkeys(ways, wrong))


def test_an_op_that_errs_without_gradients_is_caught() -> None:
    """That pass is timed by itself, and may take other code."""
    case = op_contests.Case("pool_gather", batch=2, channels=16, height=8, width=8, count=4)
    values = op_contests.given(case)
    plain = op_contests.forward(case, values, "reference")

    def errs() -> torch.Tensor:
        return plain() if torch.is_grad_enabled() else plain() + 1e-3

    runs = {op_contests.REFERENCE: plain, op_contests.COMPILED: errs}
    with pytest.raises(AssertionError, match="without gradients"):
        op_contests.verify(case, values, runs)
