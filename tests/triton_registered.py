"""The public ops on Triton, interpreted on a CPU; `test_triton_interpreter.py` runs this file."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pixelbert_fast import ops
from pixelbert_fast.kernels import configurations
from pixelbert_fast.ops import backends, registered, triton_backend
from tests import op_inputs
from tests.op_inputs import map_values, normal

BOTH = ["triton", "reference"]
ORDERS = ["project_pool", "pool_project"]


def arguments(dtype=torch.float32) -> tuple:
    features = map_values((2, 6, 5, 6), dtype).requires_grad_()
    embedding = normal((6,), dtype).requires_grad_()
    positions = torch.tensor([[0, 5, -1], [3, 3, 2], [1, 0, 4]])
    return features, positions, embedding, torch.tensor([1, 0, 1], dtype=torch.uint8)


def projection(dtype=torch.float32) -> tuple:
    return tuple(leaf.requires_grad_() for leaf in op_inputs.projection(6, 4, dtype))


def test_the_public_ops_run_on_triton_and_agree() -> None:
    features, positions, embedding, index = arguments()
    leaves = (features, embedding, *projection())
    found = []
    for backend in BOTH:
        with backends.watch() as ran, backends.backend(backend):
            drawn = ops.sample_positions(torch.tensor([[2, 3], [1, 2], [2, 2]]), (2, 3), 4, seed=3)
            loss = ops.pool_gather(features, positions, embedding, image_index=index).square().sum()
            for order in ORDERS:
                pixels = ops.pixel_embed(features, drawn, *leaves[2:], image_index=index, order=order)
                loss = loss + pixels.square().sum()
            found.append((drawn, loss, *torch.autograd.grad(loss, leaves)))
        assert {name for _, name in ran} == {backend}
        if backend == "triton":
            names = {"sample_positions", "pool_gather", "pool_gather_backward", "pixel_embed"}
            assert {op for op, _ in ran} == {*names, "pixel_embed_backward"}
    assert torch.equal(found[0][0], found[1][0])
    for ours, theirs in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradcheck_in_float64(layout: torch.memory_format) -> None:
    features, positions, embedding, index = arguments(torch.float64)
    features = features.detach().contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, e: ops.pool_gather(f, positions, e, image_index=index, backend="triton"),
        (features, embedding),
        fast_mode=True,
    )
    for order in ORDERS:
        assert torch.autograd.gradcheck(
            lambda f, *p, order=order: ops.pixel_embed(
                f, positions, *p, image_index=index, order=order, backend="triton"
            ),
            (features, *projection(torch.float64)),
            fast_mode=True,
        )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_opcheck(layout: torch.memory_format) -> None:
    features, positions, embedding, index = arguments()
    features = features.detach().contiguous(memory_format=layout).requires_grad_()
    positions, index = positions.int(), index.int()
    weight, vector, _ = projection()
    torch.library.opcheck(registered.pool_gather, (features, positions, embedding, index, True, "triton"))
    for order in ORDERS:
        torch.library.opcheck(
            registered.pixel_embed, (features, positions, weight, vector, index, order, "triton")
        )
        plain = [tensor.detach() for tensor in (features, weight, vector)]
        out, winners = triton_backend.pixel_embed_forward(plain[0], positions, *plain[1:], index, order)
        torch.library.opcheck(
            registered.pixel_embed_backward,
            (out, winners, plain[0], positions, plain[1], index, order, True, True, "triton"),
        )
    valid = torch.tensor([[2, 3], [2, 2]], dtype=torch.int32)
    torch.library.opcheck(
        registered.sample_positions, (valid, 2, 3, 5, torch.tensor(1), torch.arange(2), "triton")
    )


def test_a_whole_graph_compiles() -> None:
    features, positions, embedding, index = arguments()

    def step(features, embedding, weight, bias):
        pixels = ops.pool_gather(features * 2, positions, embedding, image_index=index, backend="triton")
        tokens = ops.pixel_embed(features, positions, weight, bias, bias, image_index=index, backend="triton")
        return pixels.square().sum() + tokens.square().sum()

    leaves = (features, embedding, *projection()[:2])
    plain = torch.autograd.grad(step(*leaves), leaves)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(*leaves), leaves), plain)


def test_tf32_only_where_torch_allows_it() -> None:
    matrix = SimpleNamespace(dtype=torch.float32, is_cuda=True)
    assert not triton_backend.allows_tf32(matrix)
    setting = torch.backends.cuda.matmul
    before, setting.fp32_precision = setting.fp32_precision, "tf32"
    try:
        assert triton_backend.allows_tf32(matrix)
        assert not triton_backend.allows_tf32(SimpleNamespace(dtype=torch.float64, is_cuda=True))
    finally:
        setting.fp32_precision = before


def test_a_search_runs_only_when_asked_and_its_result_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    features, positions, _, _ = arguments()
    features, positions = features.detach(), positions.int()[:2]
    searched = []

    def last(options, run):
        for option in options:
            run(option)
        searched.append(options)
        return options[-1]

    monkeypatch.setattr(configurations, "fastest", last)
    monkeypatch.setattr(configurations, "_found", {})
    expected, _ = triton_backend.pool_gather_forward(features, positions, None, None)
    assert not searched
    with configurations.searching():
        for _ in range(2):
            out, _ = triton_backend.pool_gather_forward(features, positions, None, None)
            assert torch.equal(out, expected)
    assert len(searched) == 1
    assert list(configurations._found.values()) == [searched[0][-1]]


@pytest.mark.parametrize(("kernel", "variant"), configurations.CONFIGURATIONS)
def test_every_configuration_is_fitted_to_the_shape(kernel: str, variant: str) -> None:
    stored = configurations.CONFIGURATIONS[kernel, variant]
    assert len(set(stored)) == len(stored)
    sizes = (5, 3, 1000)[-len(stored[0].blocks) :]
    fitted = configurations.candidates(kernel, variant, sizes)
    assert len(set(fitted)) == len(fitted) <= len(stored)
    for configuration in fitted:
        for block, size in zip(configuration.blocks, sizes, strict=True):
            assert block <= max(configurations.power_of_two(size), configurations.SMALLEST_DOT)
