"""A function of fixed shapes as one CUDA graph: recorded once, replayed with new numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor


class CudaGraph:
    """`run(**inputs)`, recorded for inputs of these shapes; a call takes the same names and shapes.

    Not ``torch.compile(mode="reduce-overhead")``: its graphs belong to the thread that recorded them, and the
    next call overwrites an output. Here any thread may call, on any stream: calls take turns, inputs are
    copied into the graph's memory, and outputs out of it.
    """

    def __init__(self, run: Callable[..., tuple[Tensor, ...]], inputs: dict[str, Tensor]):
        self._inputs = {name: value.clone() for name, value in inputs.items()}
        self._device = next(iter(inputs.values())).device
        self._lock = threading.Lock()
        with torch.cuda.device(self._device):
            # Libraries set themselves up, and code is compiled and tuned, in runs that are not recorded.
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(3):
                    run(**self._inputs)
            torch.cuda.current_stream().wait_stream(beside)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads may allocate and synchronise meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._outputs = run(**self._inputs)
            self._done = torch.cuda.Event()

    def __call__(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        with self._lock, torch.cuda.device(self._device):
            # The call before may have queued its work on another stream.
            self._done.wait()
            for name, value in inputs.items():
                self._inputs[name].copy_(value)
            self._graph.replay()
            outputs = tuple(output.clone() for output in self._outputs)
            self._done.record()
            return outputs
