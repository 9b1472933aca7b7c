"""The two-algorithm optimiser against torch's own two."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer, parameter_groups

SGD = {"algorithm": "sgd", "lr": 0.05, "weight_decay": 5e-4, "momentum": 0.9}
ADAMW = {"algorithm": "adamw", "lr": 3e-3, "weight_decay": 1e-2, "betas": (0.9, 0.98), "eps": 1e-8}


def net(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5 * 4, 2))
    # Batch norm takes it out again: its gradient is rounding, which AdamW would make a full step of.
    model[0].bias.register_hook(torch.zeros_like)
    return model


def train(model, optimizers, steps, start=0):
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        model(torch.randn(8, 3, 4, 4, generator=generator)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()


def assert_equal(one, other, tolerance=1e-6):
    # 1e-6 absolute over 20 steps of weights near 1: a few float32 roundings in another order.
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=tolerance), name


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_equals_torchs_over_20_steps(momentum, fused):
    ours, theirs = net(), net()
    groups = [{**SGD, "momentum": momentum, "params": ours.parameters()}]
    train(ours, [TwoAlgorithmOptimizer(groups, fused=fused)], 20)
    train(theirs, [torch.optim.SGD(theirs.parameters(), lr=0.05, weight_decay=5e-4, momentum=momentum)], 20)
    assert_equal(ours, theirs)


@pytest.mark.parametrize("fused", [True, False])
def test_adamw_equals_torchs_over_20_steps(fused):
    ours, theirs = net(), net()
    train(ours, [TwoAlgorithmOptimizer([{**ADAMW, "params": ours.parameters()}], fused=fused)], 20)
    train(theirs, [torch.optim.AdamW(theirs.parameters(), lr=3e-3, weight_decay=1e-2, betas=(0.9, 0.98))], 20)
    assert_equal(ours, theirs)


def test_one_object_equals_torchs_two_side_by_side():
    ours, theirs = net(), net()
    both = TwoAlgorithmOptimizer(
        [{**SGD, "params": ours[:2].parameters()}, {**ADAMW, "params": ours[2:].parameters()}]
    )
    train(ours, [both], 20)
    sgd = torch.optim.SGD(theirs[:2].parameters(), lr=0.05, weight_decay=5e-4, momentum=0.9)
    adamw = torch.optim.AdamW(theirs[2:].parameters(), lr=3e-3, weight_decay=1e-2, betas=(0.9, 0.98))
    train(theirs, [sgd, adamw], 20)
    assert_equal(ours, theirs)


def test_a_flat_piece_of_many_tensors_is_updated_as_they_are():
    """ZeRO hands the optimiser one flat vector in place of a group's tensors."""
    tensors = [torch.randn(3, 2, requires_grad=True), torch.randn(5, requires_grad=True)]
    flat = torch.cat([t.detach().flatten() for t in tensors]).requires_grad_()
    for options in (SGD, ADAMW):
        apart = TwoAlgorithmOptimizer([{**options, "params": tensors}])
        whole = TwoAlgorithmOptimizer([{**options, "params": [flat]}])
        for _ in range(5):
            grads = [torch.randn_like(t) for t in tensors]
            for tensor, grad in zip(tensors, grads, strict=True):
                tensor.grad = grad
            flat.grad = torch.cat([g.flatten() for g in grads])
            apart.step()
            whole.step()
        # The ends of a vector are rounded without fused multiply-adds: one rounding of values near 1 a step.
        assert torch.allclose(flat, torch.cat([t.flatten() for t in tensors]), rtol=0, atol=6e-7)


def test_state_has_the_same_keys_in_both_algorithms_and_survives_a_save():
    ours, again = net(), net()

    def both(model):
        parts = [{**SGD, "params": model[:2].parameters()}, {**ADAMW, "params": model[2:].parameters()}]
        return TwoAlgorithmOptimizer(parts)

    optimizer, other = both(ours), both(again)
    train(ours, [optimizer], 4)
    assert {tuple(sorted(state)) for state in optimizer.state.values()} == {("first", "second", "step")}
    file = io.BytesIO()
    torch.save({"model": ours.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    again.load_state_dict(loaded["model"])
    other.load_state_dict(loaded["optimizer"])
    train(ours, [optimizer], 4, start=4)
    train(again, [other], 4, start=4)
    assert_equal(ours, again, tolerance=0.0)
    assert {float(state["step"]) for state in other.state.values()} == {8.0}


def test_each_tensor_counts_its_own_steps():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = TwoAlgorithmOptimizer([{**ADAMW, "params": [a, b]}])
    a.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(b, torch.ones(2))
    b.grad = torch.ones(2)
    optimizer.step()
    assert (float(optimizer.state[a]["step"]), float(optimizer.state[b]["step"])) == (2.0, 1.0)
    # The first Adam update is lr whatever the gradient, after the decay: also for the late one.
    assert torch.allclose(b, torch.full((2,), 1.0 * (1 - 3e-5) - 3e-3), atol=1e-7)


def test_a_closure_is_run_with_gradients():
    model = net()
    optimizer = TwoAlgorithmOptimizer([{**ADAMW, "params": model.parameters()}])

    def closure():
        loss = model(torch.ones(2, 3, 4, 4)).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(ValueError, match="sgd, adamw, got 'lion'"):
        TwoAlgorithmOptimizer([{"params": [torch.ones(1, requires_grad=True)], "algorithm": "lion"}])


def test_groups_leave_biases_and_norms_without_decay():
    model = net()
    named = list(model.named_parameters())
    groups = parameter_groups(
        model, {"backbone": named[:4], "transformer": named[4:]}, {"backbone": SGD, "transformer": ADAMW}
    )
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in named} == {
        "0.weight": 5e-4,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "3.weight": 1e-2,
        "3.bias": 0.0,
    }
    assert {group["name"]: (group["label"], group["algorithm"]) for group in groups} == {
        "backbone": ("backbone", "sgd"),
        "backbone_no_decay": ("backbone", "sgd"),
        "transformer": ("transformer", "adamw"),
        "transformer_no_decay": ("transformer", "adamw"),
    }


def test_groups_hold_every_trained_parameter_once():
    model = net()
    named = list(model.named_parameters())
    options = {"backbone": SGD, "transformer": ADAMW}
    with pytest.raises(ValueError, match=r"3\.bias belongs to no part"):
        parameter_groups(model, {"backbone": named[:5]}, options)
    with pytest.raises(ValueError, match=r"3\.weight is in both"):
        parameter_groups(model, {"backbone": named[:5], "transformer": named[4:]}, options)
    with pytest.raises(ValueError, match="no optimiser options for the part 'head'"):
        parameter_groups(model, {"head": named}, options)
    model[0].requires_grad_(False)
    groups = parameter_groups(model, {"backbone": named[:4], "transformer": named[4:]}, options)
    assert sum(len(group["params"]) for group in groups) == 4


def pixelbert_groups(**options):
    from pixelbert_fast.model import PixelBertConfig, PixelBertForPreTraining
    from pixelbert_fast.tasks.pretraining.task import PretrainingTask

    with torch.device("meta"):
        model = PixelBertForPreTraining(PixelBertConfig.preset("tiny"))
    named = PretrainingTask.parameter_groups(PretrainingTask, model)
    found = parameter_groups(model, named, {"backbone": SGD, "transformer": {**ADAMW, **options}})
    names = {id(p): name for name, p in model.named_parameters()}
    return model, found, {names[id(p)]: group for group in found for p in group["params"]}


def test_of_pixelbert_nothing_but_matrices_decays():
    model, groups, group_of = pixelbert_groups()
    assert [group["name"] for group in groups] == [
        "backbone",
        "backbone_no_decay",
        "transformer",
        "transformer_no_decay",
    ]
    decayed = {name for name, group in group_of.items() if group["weight_decay"]}
    assert decayed
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert name not in group_of
            continue
        norm = any(word in name for word in ("LayerNorm", ".bn", "downsample.1"))
        vector = name.endswith("bias") or norm or name.endswith("pixel_type_embedding")
        assert (name in decayed) == (not vector), name
    assert group_of["pixelbert.embeddings.LayerNorm.weight"]["weight_decay"] == 0.0


def test_layers_learn_slower_the_lower_they_lie_and_heads_by_their_own_scale():
    model, groups, group_of = pixelbert_groups(layer_decay=0.5, head_lr_scale=10.0)
    count = model.config.num_hidden_layers
    lr = ADAMW["lr"]
    rates = {name: group["lr"] for name, group in group_of.items()}
    for layer in range(count):
        key = f"pixelbert.encoder.layer.{layer}.attention.self.query"
        assert rates[f"{key}.weight"] == rates[f"{key}.bias"] == lr * 0.5 ** (count - layer)
        assert group_of[f"{key}.weight"]["label"] == f"transformer_layer{layer:02d}"
    assert rates["pixelbert.embeddings.word_embeddings.weight"] == lr * 0.5 ** (count + 1)
    assert rates["pixelbert.pixel_projection.weight"] == lr * 0.5 ** (count + 1)
    assert rates["pixelbert.pooler.dense.weight"] == lr
    assert rates["itm_head.weight"] == rates["mlm_head.transform.dense.bias"] == 10 * lr
    assert rates["pixelbert.backbone.layer4.0.conv1.weight"] == SGD["lr"]
    names = [group["name"] for group in groups]
    assert len(set(names)) == len(names)
    assert {"transformer_embeddings", "transformer_layer00_no_decay", "transformer_top", "head"} <= set(names)
    # torch's own check of the groups, and no option that it does not know of.
    TwoAlgorithmOptimizer(groups)
    assert not any("layer_decay" in group or "head_lr_scale" in group for group in groups)


def test_a_scale_of_the_heads_alone_leaves_the_rest_together():
    _, groups, group_of = pixelbert_groups(head_lr_scale=3.0)
    assert group_of["itm_head.bias"]["name"] == "head_no_decay"
    assert {group["label"] for group in groups} == {"backbone", "transformer", "head"}
    assert group_of["pixelbert.encoder.layer.0.output.dense.weight"]["lr"] == ADAMW["lr"]


def test_a_layer_decay_without_layers_is_refused():
    model = net()
    with pytest.raises(ValueError, match="'all' has no numbered layers"):
        parameter_groups(model, {"all": model.named_parameters()}, {"all": {**ADAMW, "layer_decay": 0.9}})
