"""What an update does with odd memory, gradients that are not finite, and states saved elsewhere."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = {
    "sgd": {"algorithm": "sgd", "lr": 0.05, "weight_decay": 5e-4, "momentum": 0.9},
    "adamw": {"algorithm": "adamw", "lr": 3e-3, "weight_decay": 1e-2},
}
NAN, INF = float("nan"), float("inf")


def tensors(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, 3, 3, 3), (6, 5), (7,), ())
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def give(params, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def both(params, **more):
    return TwoAlgorithmOptimizer(
        [{**OPTIONS["sgd"], "params": params[:2]}, {**OPTIONS["adamw"], "params": params[2:]}], **more
    )


def snapshot(params, optimizer):
    found = [p.detach().clone() for p in params]
    return found + [value.clone() for p in params for value in optimizer.state[p].values()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("algorithm", ["sgd", "adamw"])
def test_the_memory_order_of_a_gradient_or_a_state_changes_nothing(algorithm):
    """The fused kernels take memory as one row of numbers, and would mix up differently ordered tensors."""
    plain = tensors()
    odd = tensors()
    odd[0].data = odd[0].data.contiguous(memory_format=torch.channels_last)
    odd[1].data = torch.randn(6, 10)[:, ::2].copy_(odd[1].data)  # with gaps: no fused kernel can take it
    assert not odd[1].is_contiguous()
    assert odd[0].stride() != plain[0].stride()
    first, second = (TwoAlgorithmOptimizer([{**OPTIONS[algorithm], "params": p}]) for p in (plain, odd))
    for step in range(4):
        give(plain, step)
        give(odd, step)  # row by row
        if step == 2:
            for value in ("first", "second"):
                second.state[odd[0]][value] = second.state[odd[0]][value].contiguous()
        first.step()
        second.step()
    for a, b in zip(plain, odd, strict=True):
        # A rounding a step of values up to 4: the vector units' ends lie elsewhere.
        assert torch.allclose(a, b, rtol=0, atol=2e-6)


def test_strides_along_a_side_of_length_one_cost_no_copy():
    from pixelbert_fast.training.update_rules import ordered_as

    parameter = torch.randn(8, 4, 1, 1).contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(8, 4, 1, 1)
    found = ordered_as(parameter, gradient)
    assert found.data_ptr() == gradient.data_ptr()
    assert found.stride() == parameter.stride()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_updated_step_by_step(dtype):
    ours, theirs = tensors(dtype=dtype)[1:], tensors(dtype=dtype)[1:]
    optimizer = TwoAlgorithmOptimizer([{**OPTIONS["adamw"], "params": ours}])
    reference = torch.optim.AdamW(theirs, lr=3e-3, weight_decay=1e-2)
    for step in range(5):
        give(ours, step)
        give(theirs, step)
        optimizer.step()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        # bf16 keeps 8 bits; values reach 2, so that five steps may part by a unit of 2**-7 each.
        assert torch.allclose(a, b, rtol=0, atol=1e-12 if dtype == torch.float64 else 5 * 2**-7)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("bad", [NAN, INF, -INF, 3e19])
@pytest.mark.parametrize("place", [0, 3])
def test_an_update_with_a_gradient_that_is_not_finite_is_left_out_whole(fused, bad, place):
    ours, without = tensors(), tensors()
    optimizer, reference = both(ours, fused=fused), both(without, fused=fused)
    for step in range(3):
        give(ours, step)
        if step == 1:
            before = snapshot(ours, optimizer)
            ours[place].grad.view(-1)[-1] = bad
            optimizer.step()
            assert same(before, snapshot(ours, optimizer))
            continue
        give(without, step)
        optimizer.step()
        reference.step()
    # Going on afterwards is the run that never met it, to the bit.
    assert same(snapshot(ours, optimizer), snapshot(without, reference))
    assert (float(optimizer.skipped), float(reference.skipped)) == (1.0, 0.0)
    assert float(optimizer.state[ours[0]]["step"]) == 2.0


def test_without_the_cpus_shortcut_the_step_by_step_update_is_left_out_too(monkeypatch):
    """Other devices compute and keep the old values, since reading the verdict would make the host wait."""
    from pixelbert_fast.training import update_rules

    class Elsewhere(torch.Tensor):
        """Says that it lies on another device."""

        @property
        def device(self):
            return torch.device("mps")

    ours, without = tensors(), tensors()
    optimizer, reference = both(ours, fused=False), both(without, fused=False)
    normal = update_rules.foreach

    def foreign(group, pieces, bad, scale):
        pieces.steps = [step.as_subclass(Elsewhere) for step in pieces.steps]
        normal(group, pieces, bad.as_subclass(Elsewhere), scale)

    for step in range(3):
        give(ours, step)
        if step == 1:
            ours[2].grad[0] = NAN
        with monkeypatch.context() as patch:
            patch.setattr(update_rules, "foreach", foreign)
            optimizer.step()
        if step != 1:
            give(without, step)
            reference.step()
    for a, b in zip(snapshot(ours, optimizer), snapshot(without, reference), strict=True):
        # The bias correction is rounded to float32 once more there.
        assert torch.allclose(torch.Tensor(a), b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_clipping_within_the_update_equals_clipping_before_it(fused):
    ours, theirs = tensors(), tensors()
    optimizer, reference = both(ours, fused=fused), both(theirs, fused=fused)
    optimizer.clip_norm = 2.0
    for step in range(4):
        give(ours, step)
        give(theirs, step)
        if step == 3:  # below the bound nothing is scaled
            for p in ours + theirs:
                p.grad *= 0.01
        norm = torch.nn.utils.clip_grad_norm_(theirs, 2.0)
        optimizer.step()
        reference.step()
        assert float(optimizer.norm) == pytest.approx(float(norm), rel=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        # Divided instead of multiplied by the inverse: a rounding a step of values up to 4.
        assert torch.allclose(a, b, rtol=0, atol=2e-6)


def test_gradient_norms_are_told_by_label():
    params = tensors()
    optimizer = TwoAlgorithmOptimizer(
        [
            {**OPTIONS["sgd"], "params": params[:1], "name": "a", "label": "a"},
            {**OPTIONS["sgd"], "params": params[1:2], "name": "a_no_decay", "label": "a"},
            {**OPTIONS["adamw"], "params": params[2:]},
        ]
    )
    give(params, 0)
    wanted = torch.cat([p.grad.flatten() for p in params[:2]]).norm()
    optimizer.step()
    norms = optimizer.gradient_norms()
    assert list(norms) == ["a", "group_2"]
    assert float(norms["a"]) == pytest.approx(float(wanted), rel=1e-6)
    # One group at a time, as ZeRO calls it.
    groups = optimizer.param_groups
    for group in groups:
        optimizer.param_groups = [group]
        optimizer.step()
    assert {label: float(norm) for label, norm in optimizer.gradient_norms().items()} == {
        label: pytest.approx(float(norm), rel=1e-6) for label, norm in norms.items()
    }


def test_a_state_of_before_goes_on_and_keeps_the_groups_own_names():
    """Step counts on the CPU, groups without labels: what was saved when every update went step by step."""
    ours, again = tensors(), tensors()
    optimizer = both(ours, fused=False)
    for step in range(2):
        give(ours, step)
        optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group.pop("label")
        group["name"] = "backbone"
    later = both(again)
    later.load_state_dict(state)
    assert [group["name"] for group in later.param_groups] == ["group_0", "group_1"]
    with torch.no_grad():
        for a, b in zip(again, ours, strict=True):
            a.copy_(b)
    give(ours, 2)
    give(again, 2)
    optimizer.step()
    later.step()
    for a, b in zip(ours, again, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)  # a rounding or two of values up to 4
    assert {float(state["step"]) for state in later.state.values()} == {3.0}
