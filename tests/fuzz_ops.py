"""Calls the public ops at random and judges each outcome.

    python tests/fuzz_ops.py [--calls 100000] [--seed 0] [--report]

Right is a result equal to the reference's, gradients included, or an error of Python that begins with the
op's name. Anything else ends the run with the smallest call that shows it. Calls come in batches, each from a
seed of its own; an interrupted run goes on after its last whole batch, and `--again` begins anew. `--report`
writes docs/results/fuzz-ops.md. `--sanitized` refuses to run without the library of .ci/sanitized.py,
and keeps a state and a page of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from pathlib import Path

import hypothesis
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pixelbert_fast import ops  # noqa: E402 - needs the path above
from pixelbert_fast.ops import backends  # noqa: E402
from tests.fuzz_batches import judged_batch  # noqa: E402
from tests.fuzzed_calls import Call, calls  # noqa: E402

BATCH = 1000
STATES = ROOT / "build"
REPORTS = ROOT / "docs" / "results"
ERRORS = (TypeError, ValueError, IndexError, ops.BackendError)
LONGEST_MESSAGE = 400


def run(call: Call, **changes: object) -> list[torch.Tensor]:
    """Output, then the gradients of the arguments that ask for one."""
    arguments = call.built() | changes
    out = getattr(ops, call.op)(**arguments)
    leaves = [
        value for value in arguments.values() if isinstance(value, torch.Tensor) and value.requires_grad
    ]
    if not out.requires_grad or out.device.type != "cpu":
        return [out.detach()]
    generator = torch.Generator().manual_seed(out.numel())
    grad = torch.randint(-2, 3, out.shape, generator=generator).to(out.dtype)
    found = torch.autograd.grad(out, leaves, grad, allow_unused=True)
    return [
        out.detach(),
        *(torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)),
    ]


def judged(call: Call) -> str:
    """What came of `call`: "result" or an error's class.

    Raises:
        AssertionError, or what the op raised: the outcome is not one of those allowed.
    """
    try:
        with backends.watch() as ran:
            found = run(call)
    except ERRORS as error:
        check_error(call, error)
        return type(error).__name__
    wanted = call.arguments["backend"]
    computed = found[0].device.type != "meta"  # where a registered op runs its fake, and tells nobody
    assert wanted is None or not computed or {name for _, name in ran} == {wanted}, ran
    expected = run(call, backend="reference")
    assert len(found) == len(expected)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert (ours.shape, ours.dtype, ours.device) == (theirs.shape, theirs.dtype, theirs.device)
        if ours.device.type == "cpu" and comparable(call, number):
            compare(ours, theirs, number, rounded=not exact(call))
    return "result"


def check_error(call: Call, error: Exception) -> None:
    """The error must be the op's own, in one line, and the reference's too unless the backend is at fault."""
    message = str(error)
    assert type(error) in ERRORS and message.startswith(f"{call.op}: "), repr(error)
    assert "\n" not in message and len(message) <= LONGEST_MESSAGE, message
    backend = call.arguments["backend"]
    if isinstance(error, ops.BackendError) or not (backend is None or isinstance(backend, str)):
        return
    if backend is None or backend in backends.BACKENDS:
        with pytest.raises(type(error)) as other:
            run(call, backend="reference")
        assert str(other.value) == message


def comparable(call: Call, number: int) -> bool:
    """Whether output `number` is decided: a product's gradient is not where NaN or infinity meets zeros, and
    where a product is rounded neither is which of nearly equal pixels wins.
    """
    if call.op != "pixel_embed":
        return True
    if number == 0:
        return exact(call) or not call.arguments["features"].special
    return exact(call) and not call.arguments["features"].special


def exact(call: Call) -> bool:
    """Whether every sum of products of `call` is an integer that float32 holds."""
    if call.op != "pixel_embed":
        return True
    features, weight = call.arguments["features"], call.arguments["weight"]
    return weight.shape[-1] * largest(features) * largest(weight) < 2**24


def largest(spec: object) -> int:
    return max(abs(spec.low), abs(spec.high))


def compare(ours: torch.Tensor, theirs: torch.Tensor, number: int, *, rounded: bool = False) -> None:
    """Equal; gradients of 16 bits within two roundings, because the reference rounds between its steps.

    Where products are `rounded`, in an order of each backend's own, terms may cancel: only NaN must be at
    the same places, and how close the numbers are is for the tests of the backends.
    """
    if rounded:
        assert torch.equal(ours.isnan(), theirs.isnan())
        return
    tolerance = 0.0
    if number and ours.dtype in (torch.bfloat16, torch.float16) and theirs.numel():
        tolerance = 2 * torch.finfo(ours.dtype).eps
    scale = float(theirs.abs().max()) if tolerance else 0.0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * scale, equal_nan=True)


def run_batch(seed: int, examples: int) -> Counter[str]:
    """Judge `examples` calls drawn from `seed`, and count outcomes by op.

    Raises:
        Whatever :func:`judged` raises on the smallest call that was found wrong.
    """
    return judged_batch(calls(), lambda call: f"{call.op} {judged(call)}", seed=seed, examples=examples)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first batch; the next have the next")
    parser.add_argument("--again", action="store_true", help="forget an interrupted run")
    parser.add_argument("--report", action="store_true", help="write docs/results/fuzz-ops.md")
    parser.add_argument("--sanitized", action="store_true", help="under AddressSanitizer and UBSan")
    options = parser.parse_args()
    if options.sanitized and not library_is_sanitized():
        parser.error("the library is not the sanitised one: run `make fuzz-ops-asan`")
    name = "fuzz-ops-asan" if options.sanitized else "fuzz-ops"
    state_file, report_file = STATES / f"{name}-{options.seed}.json", REPORTS / f"{name}.md"
    state = {"seed": options.seed, "batches": 0, "seconds": 0.0, "counted": {}}
    if state_file.is_file() and not options.again:
        state = json.loads(state_file.read_text(encoding="utf-8"))
    counted, batches = Counter(state["counted"]), -(-options.calls // BATCH)
    if state["batches"]:
        print(f"going on after {counted.total()} calls; --again begins anew", flush=True)
    for number in range(state["batches"], batches):
        start = time.monotonic()
        try:
            counted += run_batch(options.seed + number, BATCH)
        except KeyboardInterrupt:
            print(f"interrupted after {counted.total()} calls; the same command goes on from there")
            return 130
        state |= {"batches": number + 1, "seconds": state["seconds"] + time.monotonic() - start}
        state_file.parent.mkdir(exist_ok=True)
        beside = state_file.with_suffix(".new")
        beside.write_text(json.dumps(state | {"counted": dict(counted)}), encoding="utf-8")
        beside.replace(state_file)  # a kill leaves the old one or the new one
        print(f"{counted.total()} calls, seed {options.seed + number}, {state['seconds']:.0f} s", flush=True)
    lines = summary(counted, state, name)
    print("\n".join(lines))
    if options.report:
        title = "# Random calls of the ops" + (", under the sanitisers" if options.sanitized else "")
        report_file.parent.mkdir(parents=True, exist_ok=True)
        report_file.write_text("\n".join([title, "", *lines]) + "\n", encoding="utf-8")
    return 0


def library_is_sanitized() -> bool:
    """Whether the C++ kernels that are loaded here report bad accesses."""
    package = Path(ops.__file__).resolve().parent.parent
    libraries = [path.read_bytes() for path in package.glob("_C.*.so")]
    return len(libraries) == 1 and all(sign in libraries[0] for sign in (b"__asan_init", b"__ubsan_handle"))


def summary(counted: Counter[str], state: dict, name: str) -> list[str]:
    """The outcomes as a table, with what they came from; `name`: of the make target."""
    outcomes = ["result", *(error.__name__ for error in ERRORS)]
    last = state["seed"] + state["batches"] - 1
    lines = [
        f"{counted.total():,} calls by `make {name}`, seeds {state['seed']} to {last}, in"
        f" {state['seconds']:.0f} s. Every one ended in a",
        "result equal to the reference's, gradients included, or in an error of Python whose message begins",
        "with the op's name.",
        "",
        f"| op | {' | '.join(outcomes)} |",
        f"|---|{'---:|' * len(outcomes)}",
    ]
    for op in backends.OPS:
        lines.append(f"| {op} | {' | '.join(str(counted[f'{op} {outcome}']) for outcome in outcomes)} |")
    usable = [
        name
        for name in backends.BACKENDS
        if backends.why_not(name, "pool_gather", "cpu", torch.float32) is None
    ]
    if name == "fuzz-ops-asan":
        lines += [
            "",
            "The C++ kernels were built with `-fsanitize=address,undefined -fno-sanitize-recover=all`,",
            "so that any bad read, write or arithmetic ends the run: there was no report. CUDA's",
            "compute-sanitizer (memcheck, racecheck, initcheck): not measured, no GPU could be reached.",
        ]
    return [
        *lines,
        "",
        f"Python {platform.python_version()}, torch {torch.__version__}, hypothesis {hypothesis.__version__},"
        f" {platform.machine()}, {os.cpu_count()} cores;",
        f"backends that ran for pool_gather: {', '.join(usable)}.",
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
