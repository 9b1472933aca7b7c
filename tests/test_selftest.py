"""`pixelbert selftest`: right backends pass, and wrong ones are named with what is wrong."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixelbert_fast.ops import backends, cpu_backend, selftest, verdicts
from pixelbert_fast.ops.selftest_cases import MapCase, cases
from tests import wrong_kernels

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
REASON = cpu_backend.why_not_loaded()
needs_library = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def check(op: str, name: str = "cpu", **options) -> selftest.Result:
    (result,) = selftest.run(ops=[op], names=[name], devices=[CPU], **options)
    return result


def test_every_usable_backend_passes(cache: Path) -> None:
    told: list[selftest.Result] = []
    results = selftest.run(devices=[CPU], tell=told.append)
    assert told == results
    assert [(one.op, one.backend) for one in results] == [
        (op, name) for op in backends.OPS for name in backends.BACKENDS
    ]
    assert not [one for one in results if one.status not in (selftest.PASSED, selftest.NOT_USABLE)]
    for one in results:
        dtype = torch.int32 if one.op == "sample_positions" else torch.float32
        reason = backends.why_not(one.backend, one.op, "cpu", dtype)
        assert (one.status == selftest.NOT_USABLE) == (reason is not None)
        assert reason is None or one.detail == reason
    selftest.keep(results)
    assert not cache.exists()


def test_the_cases_are_of_every_dtype_layout_and_kind() -> None:
    for op, kinds, crowded in (("pool_gather", 3, 8), ("pixel_embed", 2, 0)):
        for small in (True, False):
            there = cases(op, small=small)
            assert len(there) == len(set(there))
            assert len({(case.dtype, case.layout, case.kind) for case in there}) == 4 * 3 * kinds + crowded
            # Where there is time for few, each dtype has its turn.
            assert len({case.dtype for case in there[:8]}) == 4


def test_time_that_is_over_leaves_one_case_each() -> None:
    result = check("pool_gather", backends.REFERENCE, seconds=0)
    assert (result.status, result.detail.partition(" cases")[0]) == (selftest.PASSED, "1 of 152")
    assert not result.complete and check("sample_positions", backends.REFERENCE).complete


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_takes_gradients_wherever_it_is_called(mode) -> None:
    with mode():
        assert check("pool_gather", backends.REFERENCE, seconds=0).status == selftest.PASSED


WRONG = [
    ("pool_gather", "pool_gather_forward", wrong_kernels.another_winner, "gradient of features"),
    ("pool_gather", "pool_gather_forward", wrong_kernels.one_rounding_off, "output: "),
    ("pool_gather", "pool_gather_forward", wrong_kernels.last_channel_unwritten, "output: "),
    ("pool_gather", "pool_gather_forward", wrong_kernels.wider, "output: it is float64 "),
    (
        "pool_gather",
        "pool_gather_forward",
        wrong_kernels.right_with_gradients_only,
        "output without gradients: ",
    ),
    ("pool_gather", "pool_gather_forward", wrong_kernels.without_embedding, "output: "),
    (
        "pool_gather",
        "pool_gather_backward",
        wrong_kernels.sums_of_sixteen_bits,
        "crowded: gradient of features",
    ),
    ("pool_gather", "pool_gather_forward", wrong_kernels.raising, "it raised RuntimeError: no kernel image"),
    ("sample_positions", "sample_positions", wrong_kernels.a_neighbour, "a stored answer: output"),
]


@needs_library
@pytest.mark.parametrize(
    ("op", "function", "wrong", "named"), WRONG, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_wrong_kernel_fails_and_is_named(
    op: str, function: str, wrong, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_kernels.break_kernel(monkeypatch, function, wrong)
    result = check(op)
    assert (result.op, result.backend, result.status) == (op, "cpu", selftest.FAILED)
    assert named in result.detail


@needs_library
def test_another_backend_than_the_one_named_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "choose", lambda *_: backends.REFERENCE)
    result = check("pool_gather")
    assert result.status == selftest.FAILED and "reference ran instead" in result.detail


@needs_library
def test_a_device_that_stops_working_condemns_nobody_else(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_kernels.break_kernel(monkeypatch, "sample_positions", wrong_kernels.raising)
    monkeypatch.setattr(selftest, "_answers", lambda device: False)
    results = selftest.run(names=["cpu"], devices=[CPU])
    assert [one.status for one in results] == ["failed", "not checked", "not checked"]
    assert "cpu stopped working when cpu ran sample_positions" in results[1].detail
    selftest.keep(results)
    assert set(verdicts.avoided("cpu")) == {("sample_positions", "cpu")}


def test_how_far_a_result_may_be_off() -> None:
    right = torch.tensor([1.0, 2.0, torch.nan], dtype=torch.float64)
    plain = right.float()
    epsilon = torch.finfo(torch.float32).eps
    exact = MapCase((1, 4, 2, 2), torch.float32, "contiguous", "ties")
    close = MapCase((1, 4, 2, 2), torch.float32, "contiguous", "separated")
    assert selftest.difference(plain, right, plain, exact, epsilon) is None
    off = plain.clone()
    off[1] += 2 * epsilon
    assert "1 of 3 values differ by more than 0, the worst is 2" in selftest.difference(
        off, right, plain, exact, epsilon
    )
    right, plain, off = right[:2], plain[:2], off[:2]
    assert selftest.difference(off, right, plain, close, epsilon) is None
    off[1] += 40 * epsilon
    assert selftest.difference(off, right, plain, close, epsilon)
    assert "it is float32 [2] where float32 [3]" in selftest.difference(
        plain, right.new_ones(3), plain, exact, 0.0
    )


def test_one_gpu_of_each_model_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    models = ["H100", "A100", "H100"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(models))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: models[number])
    assert selftest.here() == [CPU, torch.device("cuda", 0), torch.device("cuda", 1)]


@pytest.mark.parametrize(
    ("name", "setting", "dtype", "rounding"),
    [
        ("triton", "ieee", torch.float32, 2.0**-23),
        ("triton", "tf32", torch.float32, selftest.TF32_ROUNDING),
        ("reference", "ieee", torch.float32, selftest.TF32_ROUNDING),
        ("triton", "tf32", torch.bfloat16, 2.0**-7),
    ],
)
def test_tf32_is_allowed_where_torch_allows_it(
    name: str, setting: str, dtype: torch.dtype, rounding: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "_products_may_be_tf32", lambda: setting == "tf32")
    case = MapCase((1, 4, 2, 2), dtype, "contiguous", "separated", dimensions=3, order="project_pool")
    assert selftest._rounding(case, name, torch.device("cuda", 0)) == rounding
    assert selftest._rounding(case, name, CPU) == torch.finfo(dtype).eps


def test_memory_is_poisoned_for_a_while() -> None:
    with selftest.poisoned_memory():
        assert torch.empty(3).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_settings_are_left_as_they_were() -> None:
    def settings() -> tuple:
        filled = torch.utils.deterministic.fill_uninitialized_memory
        return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), filled

    before = settings()
    selftest.run(devices=[CPU], seconds=0)
    assert settings() == before


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_triton_is_checked_under_its_interpreter(tmp_path: Path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, "-m", "pixelbert_fast.cli", "selftest", "--seconds", "6"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    passed = {line[0] for line in lines if line[1:4] == ["triton", "cpu", "passed:"]}
    assert passed == set(backends.OPS)
