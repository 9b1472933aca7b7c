"""The compiled pieces of the fast model: the eager ones' numbers, few graphs, a way on without a compiler."""

import copy
import pickle

import pytest
import torch

from pixelbert_fast.model import compilation, regions
from tests.small_models import (
    INDEX,
    MASK,
    SIZES,
    assert_same_gradients,
    config,
    images,
    pair,
    run,
    text,
)


@pytest.fixture(autouse=True)
def fresh_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    regions.compiled.cache_clear()
    yield
    torch.compiler.reset()
    regions.compiled.cache_clear()


@pytest.mark.skipif(compilation.can_compile("cpu") is not None, reason="torch.compile cannot run here")
def test_outputs_gradients_and_statistics_are_the_eager_ones(monkeypatch):
    reference, fast = pair(config(norm="batch", num_hidden_layers=2), torch.float64)
    assert fast.compile_regions() and fast.regions is not regions.EAGER
    entered = []
    for name in ("finish_layer", "norm_relu"):
        original = getattr(fast.regions, name)
        counted = lambda *a, name=name, original=original: entered.append(name) or original(*a)  # noqa: E731
        fast.regions = fast.regions._replace(**{name: counted})
    batches = [
        {
            "input_ids": text(3),
            "attention_mask": MASK,
            "pixel_values": images(torch.float64),
            "image_index": INDEX,
        },
        {"input_ids": text(2, words=5), "pixel_values": images(torch.float64)[..., :40]},
        {"input_ids": text(2), "pixel_values": images(torch.float64), "pixel_size": SIZES},
    ]
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()  # those of other tests of this process
    for number, batch in enumerate(batches):
        results = []
        for model in (reference, fast):
            model.train()
            out, got = run(
                model,
                batch.pop("input_ids") if model is fast else batch["input_ids"],
                seed=number,
                **{name: value for name, value in batch.items() if name != "input_ids"},
            )
            results.append((out.last_hidden_state, got))
        (expected, wanted), (found, got) = results
        # As between the eager two: some thousand float64 roundings of values of order 1.
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
        assert_same_gradients(got, wanted, 1e-8)
        if number == 1:
            compiled = graphs["unique_graphs"]
    for (name, value), (_, other) in zip(reference.named_buffers(), fast.named_buffers(), strict=True):
        torch.testing.assert_close(other, value, rtol=1e-11, atol=1e-11, msg=name)
    assert {"finish_layer", "norm_relu"} <= set(entered)
    # Of a layer's end and of norms with and without residual; more where a size of the first batch was 1.
    assert graphs["unique_graphs"] == compiled <= 12


def test_without_a_compiler_the_model_goes_on_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(compilation, "_why_not", lambda kind: "there is no working C++ compiler")
    compilation._warn_once.cache_clear()
    _, fast = pair(config(norm="batch"))
    for _ in range(2):
        assert not fast.compile_regions()
    assert fast.regions is regions.EAGER
    assert caplog.text.count("no working C++ compiler") == 1
    run(fast.train(), text(2), pixel_values=images(), seed=0)


def test_a_model_that_compiles_regions_can_be_copied_and_pickled(monkeypatch):
    monkeypatch.setattr(compilation, "_why_not", lambda kind: None)
    _, fast = pair(config(norm="frozen"))
    fast.compile_regions()
    assert copy.deepcopy(fast).regions is fast.regions
    read = pickle.loads(pickle.dumps(fast))
    assert read.regions == regions.EAGER  # what reads it may have no compiler
    assert fast.regions is not regions.EAGER
