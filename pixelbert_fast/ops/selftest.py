"""Every op on every backend and device that is here, forward and backward, against the reference.

``pixelbert selftest`` prints what :func:`run` finds; :func:`keep` lets automatic choice avoid what is wrong.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from . import backends, verdicts
from .selftest_cases import Case, cases

PASSED, FAILED, NOT_USABLE, NOT_CHECKED = "passed", "failed", "not usable", "not checked"
SECONDS = 50.0
TF32_ROUNDING = 2.0**-10


@dataclass(frozen=True)
class Result:
    """What one backend of one op did on one device.

    Attributes:
        status: "passed", "failed", "not usable" or "not checked".
        detail: how many cases passed, the first disagreement, or the sentence of why not.
        complete: whether there was time for every case.
    """

    op: str
    backend: str
    device: torch.device
    status: str
    detail: str
    complete: bool = False


def run(
    *,
    ops: Sequence[str] = backends.OPS,
    names: Sequence[str] = backends.BACKENDS,
    devices: Sequence[torch.device] | None = None,
    seconds: float = SECONDS,
    tell: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Check the backends `names` of `ops`, at least one case of each.

    Args:
        devices: by default the CPU and one GPU of each model.
        seconds: about how long all may take together. Where a backend has to compile its kernels first, not
            every case may fit; how many did is told.
        tell: called with each result as it is there.
    """
    devices = here() if devices is None else devices
    lines = [(device, op, name) for device in devices for op in ops for name in names]
    answers: dict[Case, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}
    end = time.monotonic() + seconds
    results: list[Result] = []
    lost: dict[torch.device, str] = {}
    for number, (device, op, name) in enumerate(lines):
        if device in lost:
            result = Result(op, name, device, NOT_CHECKED, lost[device])
        else:
            share = (end - time.monotonic()) / (len(lines) - number)
            result = _check(op, name, device, time.monotonic() + share, answers)
            if result.status == FAILED and not _answers(device):
                lost[device] = (
                    f"{device} stopped working when {name} ran {op}; run this again in a new process."
                )
        results.append(result)
        if tell is not None:
            tell(result)
    return results


def keep(results: Sequence[Result]) -> None:
    """Let automatic choice avoid the backends that failed, and use again those that passed every case.

    Raises:
        OSError: the file of verdicts cannot be written.
    """
    for device in dict.fromkeys(result.device for result in results):
        here = [one for one in results if one.device == device and one.backend != backends.REFERENCE]
        wrong = {(one.op, one.backend): one.detail for one in here if one.status == FAILED}
        right = {(one.op, one.backend) for one in here if one.status == PASSED and one.complete}
        verdicts.keep(device, wrong, right)


def here() -> list[torch.device]:
    """The CPU, and the first GPU of each model."""
    found = [torch.device("cpu")]
    models = set()
    for number in range(torch.cuda.device_count()):
        model = torch.cuda.get_device_name(number)
        if model not in models:
            models.add(model)
            found.append(torch.device("cuda", number))
    return found


def _check(op: str, name: str, device: torch.device, end: float, answers: dict) -> Result:
    interpreted = name == "triton" and device.type == "cpu"
    usable, reason = [], ""
    for case in cases(op, small=interpreted):
        try:
            why_not = backends.why_not(name, op, device.type, case.dtype)
        except Exception as error:
            return Result(op, name, device, FAILED, f"it cannot be asked: {_said(error)}")
        if why_not is None:
            usable.append(case)
        reason = reason or why_not or ""
    if not usable:
        return Result(op, name, device, NOT_USABLE, reason)
    start = time.monotonic()
    done = 0
    for case in usable:
        if done and time.monotonic() > end:
            break
        if case not in answers:
            with torch.inference_mode(False), torch.enable_grad(), one_thread():
                answers[case] = case.truth(), case.rounded()
        wrong = _disagreement(case, name, device, *answers[case])
        if wrong:
            return Result(op, name, device, FAILED, f"{case}: {wrong}")
        done += 1
    complete = done == len(usable)
    count = f"{done}" if complete else f"{done} of {len(usable)}"
    more = "" if complete else "; more time allows more"
    detail = f"{count} cases in {time.monotonic() - start:.1f} s{more}"
    return Result(op, name, device, PASSED, detail, complete)


def _disagreement(
    case: Case, name: str, device: torch.device, truth: dict[str, Tensor], rounded: dict[str, Tensor]
) -> str | None:
    try:
        # The reference leaves nothing unwritten, and its gradients may have no deterministic kernel on a GPU.
        around = one_thread() if name == backends.REFERENCE else poisoned_memory()
        with torch.inference_mode(False), torch.enable_grad(), backends.watch() as ran, around:
            found = case.run(name, device)
    except Exception as error:
        return _said(error)
    if others := {other for _, other in ran} - {name}:
        return f"{', '.join(sorted(others))} ran instead."
    for what, right in truth.items():
        if wrong := difference(found[what], right, rounded[what], case, _rounding(case, name, device)):
            return f"{what}: {wrong}"
    return None


def difference(found: Tensor, right: Tensor, rounded: Tensor, case: Case, rounding: float) -> str | None:
    """How `found` disagrees with `right`, or None where it does not.

    Exact cases allow no difference. Otherwise the error may be twice that of PyTorch's own result in that
    dtype, `rounded`, plus a few roundings (PyTorch may have been lucky), plus what the same numbers added in
    another order differ by: about the square root of their count, in roundings of the sums' type.
    """
    if found.shape != right.shape or found.dtype != rounded.dtype:
        expected = f"{rounded.dtype} {list(right.shape)}"
        return f"it is {found.dtype} {list(found.shape)} where {expected} was expected.".replace("torch.", "")
    if not found.numel():
        return None
    error = (found.double() - right.double()).abs()
    same = (found.double() == right.double()) | (found.isnan() & right.isnan())
    error = torch.where(same, 0.0, error.nan_to_num(nan=torch.inf))
    allowed = 0.0
    if not case.exact:
        wide = max(
            torch.finfo(torch.float64 if case.dtype == torch.float64 else torch.float32).eps, rounding / 4
        )
        own = (rounded.double() - right).abs().max().item()
        allowed = 2 * own + (4 * rounding + case.terms**0.5 * wide) * right.abs().max().item()
    wrong = int((error > allowed).sum())
    if not wrong:
        return None
    worst = int(error.argmax())
    values = f"{found.flatten()[worst].item():g} where {right.flatten()[worst].item():g} is right"
    return f"{wrong} of {error.numel()} values differ by more than {allowed:.2g}, the worst is {values}."


def _rounding(case: Case, name: str, device: torch.device) -> float:
    """One rounding of the dtype's, or of tf32's where products of float32 may be rounded to it."""
    if not case.dtype.is_floating_point:
        return 0.0
    rounded = case.dtype == torch.float32 and device.type == "cuda" and case.op == "pixel_embed"
    # cuDNN, which takes the reference's product, has a setting of its own that allows it by default.
    if rounded and (name == backends.REFERENCE or _products_may_be_tf32()):
        return TF32_ROUNDING
    return torch.finfo(case.dtype).eps


def _products_may_be_tf32() -> bool:
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """New memory is full of NaN, or of the largest integer, so that an output nobody wrote shows."""
    before = torch.are_deterministic_algorithms_enabled()
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = True
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warned_only)
            torch.utils.deterministic.fill_uninitialized_memory = filled


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch's own operations on small tensors take longer with more threads, most on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _answers(device: torch.device) -> bool:
    """Whether the device still computes: after an illegal access a GPU refuses everything in this process."""
    try:
        return bool((torch.ones(2, device=device).sum() == 2).item())
    except Exception:
        return False


def _said(error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0]
    return (
        f"it raised {type(error).__name__}: {first_line}"
        if first_line
        else f"it raised {type(error).__name__}"
    )
