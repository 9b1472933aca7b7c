"""The registered ops inside PyTorch's machinery: opcheck, compilation, autocast, checkpointing, refusals."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from pixelbert_fast import ops
from pixelbert_fast.ops import backends, cpu_backend, registered
from tests.op_inputs import map_values, normal

REASON = cpu_backend.why_not_loaded()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def gather_inputs(dtype=torch.float32) -> tuple:
    features = map_values((2, 6, 5, 6), dtype).requires_grad_()
    embedding = normal((6,), dtype).requires_grad_()
    positions = torch.tensor([[0, 5, -1], [3, 3, 2], [1, 0, 4]], dtype=torch.int32)
    return features, positions, embedding, torch.tensor([1, 0, 1], dtype=torch.int32)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_opcheck_pool_gather(layout: torch.memory_format) -> None:
    features, positions, embedding, image_index = gather_inputs()
    features = features.detach().contiguous(memory_format=layout).requires_grad_()
    torch.library.opcheck(registered.pool_gather, (features, positions, embedding, image_index, True, "cpu"))
    torch.library.opcheck(registered.pool_gather, (features, positions[:2], None, None, True, "cpu"))


@pytest.mark.parametrize("learned", [True, False])
def test_winners_are_saved_only_where_the_features_learn(learned: bool) -> None:
    features, positions, embedding, image_index = gather_inputs()
    features = features.detach().requires_grad_(learned)
    out = ops.pool_gather(features, positions, embedding, image_index=image_index, backend="cpu")
    saved = {tensor.dtype: tensor.numel() for tensor in out.grad_fn.saved_tensors}
    assert saved[torch.uint8] == (out.numel() if learned else 0)
    out.sum().backward()
    assert (features.grad is not None) == learned and embedding.grad.tolist() == [8.0] * 6
    with torch.no_grad():
        assert torch.equal(out, ops.pool_gather(features, positions, embedding, image_index=image_index))
    if not learned:
        arguments = (features, positions, embedding, image_index, False, "cpu")
        torch.library.opcheck(registered.pool_gather, arguments)


def test_opcheck_the_others() -> None:
    _, positions, _, image_index = gather_inputs()
    grad, winners = torch.randn(3, 3, 6), torch.randint(0, 4, (3, 3, 6), dtype=torch.uint8)
    for channels_last in (False, True):
        torch.library.opcheck(
            registered.pool_gather_backward,
            (grad, winners, positions, image_index, [2, 6, 5, 6], channels_last, "cpu"),
        )
    torch.library.opcheck(registered.sum_rows, (grad, positions, image_index, 2, 6, "cpu"))
    valid = torch.tensor([[3, 4], [2, 2]], dtype=torch.int32)
    torch.library.opcheck(
        registered.sample_positions, (valid, 3, 4, 5, torch.tensor(1), torch.arange(2), "cpu")
    )


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_whole_graph_compiles_forward_and_backward(backend: str) -> None:
    features, _, embedding, image_index = gather_inputs()

    def step(features, embedding):
        valid = torch.tensor([[2, 3], [2, 2], [1, 3]])
        positions = ops.sample_positions(valid, (2, 3), 4, seed=5, backend=backend)
        pixels = ops.pool_gather(features * 2, positions, embedding, image_index=image_index, backend=backend)
        return (pixels**2).sum()

    plain = torch.autograd.grad(step(features, embedding), (features, embedding))
    torch.compiler.reset()
    with backends.watch() as ran:
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        found = torch.autograd.grad(compiled(features, embedding), (features, embedding))
    if backend == "cpu":
        assert {name for _, name in ran} == {"cpu"}
        assert {op for op, _ in ran} == {"sample_positions", "pool_gather", "pool_gather_backward"}
    torch.testing.assert_close(found, plain)


def test_the_automatic_choice_is_made_when_a_graph_is_compiled() -> None:
    features, positions, embedding, image_index = gather_inputs()
    torch.compiler.reset()
    compiled = torch.compile(ops.pool_gather, fullgraph=True, backend="aot_eager")
    with backends.watch() as ran:
        compiled(features, positions, embedding, image_index=image_index)
    assert ran == [("pool_gather", "cpu")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    """Pooling and picking keep the dtype of the features, as max_pool2d does under autocast."""
    features, positions, embedding, image_index = gather_inputs(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        for backend in ("cpu", "reference"):
            out = ops.pool_gather(
                features, positions, embedding.float(), image_index=image_index, backend=backend
            )
            assert out.dtype == dtype


def test_activation_checkpointing() -> None:
    features, positions, embedding, image_index = gather_inputs()

    def pixels(features):
        return ops.pool_gather(features * 3, positions, embedding, image_index=image_index, backend="cpu")

    plain = torch.autograd.grad(pixels(features).square().sum(), features)
    kept = torch.autograd.grad(checkpoint(pixels, features, use_reentrant=False).square().sum(), features)
    assert torch.equal(plain[0], kept[0])


def test_only_the_gradients_that_are_wanted() -> None:
    features, positions, embedding, image_index = gather_inputs()
    with backends.watch() as ran:
        out = ops.pool_gather(features.detach(), positions, embedding, image_index=image_index, backend="cpu")
        out.sum().backward()
    assert ran == [("pool_gather", "cpu")]
    assert embedding.grad.tolist() == [8.0] * 6


def test_second_derivatives_are_refused() -> None:
    features, positions, _, image_index = gather_inputs()
    out = ops.pool_gather(features, positions, image_index=image_index, backend="cpu")
    (grad,) = torch.autograd.grad(out.square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="pool_gather: its gradient cannot be differentiated again"):
        grad.sum().backward()


def test_vmap_is_refused() -> None:
    features = torch.randn(3, 2, 6, 4, 4)
    positions = torch.zeros(2, 1, dtype=torch.int32)
    with pytest.raises(NotImplementedError, match=r"pool_gather: torch\.func\.vmap is not supported"):
        torch.func.vmap(lambda f: registered.pool_gather(f, positions, None, None, True, "cpu"))(features)
