"""Times `pool_gather` on this machine's CPU: the C++ kernels, the reference eager and, if asked, compiled.

    python benchmarks/bench_ops.py [--threads 2] [--compile] [--layout channels_last] [--dtype float32]

Values and gradients are compared first, and nothing is timed where they differ. The candidates take turns, so
that a busy moment of the machine meets all of them; medians and the fastest run are printed. The floor of the
backward is measured in the same run: allocating and writing the dense gradient once.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch

from pixelbert_fast import ops
from pixelbert_fast.ops import backends

SHAPE, COUNT = (8, 2048, 24, 32), 100


def inputs(dtype: torch.dtype, layout: torch.memory_format) -> dict[str, torch.Tensor]:
    """A map of the paper's size, the places of one draw, and the gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    batch, channels, height, width = SHAPE
    features = torch.randn(SHAPE, generator=generator).to(dtype).contiguous(memory_format=layout)
    grid = (height // 2, width // 2)
    return {
        "features": features.requires_grad_(),
        "positions": ops.sample_positions(torch.tensor([grid] * batch), grid, COUNT, seed=0),
        "embedding": torch.randn(channels, generator=generator).to(dtype).requires_grad_(),
        "grad": torch.randn(batch, COUNT, channels, generator=generator).to(dtype),
    }


def candidates(given: dict[str, torch.Tensor], compiled: bool) -> dict[str, Callable[[], torch.Tensor]]:
    """The forward of each implementation by name."""

    def with_backend(name: str) -> Callable[[], torch.Tensor]:
        return lambda: ops.pool_gather(
            given["features"], given["positions"], given["embedding"], backend=name
        )

    found = {"cpu": with_backend("cpu"), "reference": with_backend("reference")}
    if compiled:
        found["reference, compiled"] = torch.compile(with_backend("reference"))
    return found


def gradients(forward: Callable[[], torch.Tensor], given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Output and gradients of one forward and backward."""
    given["features"].grad = given["embedding"].grad = None
    out = forward()
    out.backward(given["grad"])
    return [out.detach(), given["features"].grad, given["embedding"].grad]


def check(forwards: dict[str, Callable[[], torch.Tensor]], given: dict[str, torch.Tensor]) -> None:
    """Raises AssertionError where an implementation differs from the reference, or another one ran."""
    expected = gradients(forwards["reference"], given)
    with backends.watch() as ran:
        found = gradients(forwards["cpu"], given)
    assert ran == [("pool_gather", "cpu"), ("pool_gather_backward", "cpu")], ran
    assert torch.equal(found[0], expected[0]), "the forward differs"
    assert torch.equal(found[1], expected[1]), "the gradient of the features differs"
    # A sum of 800 rows in another order.
    torch.testing.assert_close(found[2], expected[2], rtol=1e-2, atol=1e-3)


def take_turns(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run, `rounds` times in turn, after two rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 2):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(title: str, seconds: dict[str, list[float]]) -> None:
    """Print milliseconds, and how many times as long as `cpu` each takes."""
    print(title)
    fastest, median = min(seconds["cpu"]), statistics.median(seconds["cpu"])
    for name, each in seconds.items():
        middle = statistics.median(each)
        print(
            f"  {name:<20} median {1e3 * middle:8.2f} ms ({middle / median:5.2f} x)"
            f"   fastest {1e3 * min(each):8.2f} ms ({min(each) / fastest:5.2f} x)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16", "float64"])
    parser.add_argument("--layout", default="channels_last", choices=["channels_last", "contiguous"])
    parser.add_argument("--compile", action="store_true", help="time the reference under torch.compile too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    layout = torch.channels_last if options.layout == "channels_last" else torch.contiguous_format
    given = inputs(getattr(torch, options.dtype), layout)
    forwards = candidates(given, options.compile)
    check(forwards, given)
    print(
        f"pool_gather {list(SHAPE)}, K = {COUNT}, {options.dtype}, {options.layout};"
        f" torch {torch.__version__}, {options.threads} threads, {platform.machine()}; results agree"
    )
    with torch.no_grad():
        report("forward", take_turns(forwards, options.rounds))
    both = {name: lambda forward=forward: gradients(forward, given) for name, forward in forwards.items()}
    both["floor: zeros_like"] = lambda: torch.zeros_like(given["features"])
    report("forward + backward", take_turns(both, options.rounds))


if __name__ == "__main__":
    main()
