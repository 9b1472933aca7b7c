"""Replaying a recorded function: on a GPU where there is one, and its order of work everywhere."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from pixelbert_fast import FastPixelBERT
from pixelbert_fast.model.cuda_graph import CudaGraph
from pixelbert_fast.model.inference_shape import InferenceShape
from tests.small_models import config, text


@pytest.fixture
def recorded(monkeypatch):
    """A stand-in for CUDA graphs on a CPU: a replay writes into the outputs that the recording left."""
    log = []

    class Graph:
        def replay(self):
            log.append("replay")
            for output, new in zip(holder.graph._outputs, holder.run(**holder.graph._inputs), strict=True):
                output.copy_(new)

    class Event:
        def wait(self):
            log.append("wait")

        def record(self):
            log.append("record")

    @contextmanager
    def graph(recording, **_):
        log.append("capture")
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    holder = SimpleNamespace(graph=None, run=None, log=log)
    for name, stand_in in {
        "CUDAGraph": Graph,
        "Event": Event,
        "graph": graph,
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda _: nullcontext(),
        "device": lambda _: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return holder


def test_a_replay_reads_new_inputs_and_its_outputs_stay(recorded):
    recorded.run = lambda x, y: (x + y, x * 2)
    recorded.graph = CudaGraph(recorded.run, {"x": torch.zeros(3), "y": torch.zeros(3)})
    assert recorded.log == ["capture"]
    first = recorded.graph(x=torch.ones(3), y=torch.full((3,), 2.0))
    second = recorded.graph(x=torch.full((3,), 5.0), y=torch.zeros(3))
    assert [each.tolist() for each in first] == [[3.0] * 3, [2.0] * 3]
    assert [each.tolist() for each in second] == [[5.0] * 3, [10.0] * 3]
    # A call on another stream starts behind the one before it, its own copies included.
    assert recorded.log[1:] == ["wait", "replay", "record"] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_replays_on_a_gpu_are_the_eager_models():
    model = FastPixelBERT(config(norm="frozen")).eval().cuda()
    run = model.compile_for_inference([InferenceShape(2, 48, 64, 2, 9)])
    kept = []
    for seed in range(3):
        pixels = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(seed)).cuda()
        with torch.no_grad():
            kept.append((run(text(2).cuda(), None, pixels), model(text(2).cuda(), None, pixels)))
    for found, expected in kept:
        # TensorFloat-32 is allowed to convolutions on a GPU: 10 bits of mantissa.
        torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, rtol=1e-2, atol=1e-2)
