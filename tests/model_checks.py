"""What must hold of FastPixelBERT on a device: run on a GPU by test_model_cuda.py, rehearsed on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pixelbert_fast import FastPixelBERT, PixelBERT, PixelBertForPreTraining
from pixelbert_fast.model import fused_convolution, packed_attention
from tests.small_models import INDEX, MASK, PLACES, SIZES, config, gradients, images, projected, stir, text
from tests.task_models import OUTPUT, inputs_of, pair_of

LABELS = torch.tensor([[-100, 7, -100, 9, -100, -100, -100]] * 2 + [[-100, -100, 8, 8, -100, -100, -100]])


# How far apart outputs and gradients of the same sums in another order may lie, relative to all of them: a
# few times what rounding was found to make of them on a CPU, of half precision's against float32's.
ROUNDING = {
    torch.float32: (1e-5, 1e-4),
    torch.bfloat16: (0.03, 0.2),
    torch.float16: (0.01, 0.1),
}


def settings(**more):
    """Heads of 64, which Flash takes, and no dropout unless it is asked for."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    wide = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 256}
    return config(**(still | wide | more))


@contextmanager
def attention_that_ran() -> Iterator[list[str]]:
    """Yields a list of the implementations of attention that run inside, a call each."""
    ran: list[str] = []
    kept = dict(packed_attention.IMPLEMENTATIONS)

    def noted(name, function):
        return lambda *arguments: ran.append(name) or function(*arguments)

    packed_attention.IMPLEMENTATIONS.update({name: noted(name, kept[name]) for name in kept})
    try:
        yield ran
    finally:
        packed_attention.IMPLEMENTATIONS.update(kept)


def models(device, dtype=torch.float32, *, task=False, **more):
    """The reference and the fast model with the same weights."""
    made = []
    for fast in (False, True):
        torch.manual_seed(0)
        if task:
            model = PixelBertForPreTraining(settings(**more), fast=fast)
        else:
            model = (FastPixelBERT if fast else PixelBERT)(settings(**more))
        made.append(stir(model).to(device, dtype))
    return made


def inputs(device, dtype=torch.float32, **more):
    """Three captions of two images, padded text, holes among the places."""
    given = {"input_ids": text(3), "attention_mask": MASK, "image_index": INDEX, "positions": PLACES} | more
    given = {name: value.to(device) if torch.is_tensor(value) else value for name, value in given.items()}
    return given | {"pixel_values": images().to(device, dtype)}


def trained(model, given):
    """Outputs as float32, and every gradient, of one step of a task model or of a random projection."""
    model.zero_grad()
    out = model(**given)
    if "labels" in given:
        out.loss.backward()
        found = (out.mlm_logits, out.itm_logits)
    else:
        found = (out.last_hidden_state, out.pooler_output)
        projected(*(value.float() for value in found)).backward()
    return [value.detach().float() for value in found], gradients(model)


def distance(found, expected) -> float:
    """Root of the summed squares of the differences, relative to that of `expected`; both lists or dicts."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = ([values[name] for name in expected] for values in (found, expected))
    assert [value.shape for value in found] == [value.shape for value in expected]
    pairs = [(a.double(), b.double()) for a, b in zip(found, expected, strict=True)]
    error = sum((a - b).square().sum() for a, b in pairs)
    return float((error / sum(b.square().sum() for _, b in pairs)).sqrt().detach())


def task_inputs(device, dtype=torch.float32, **more):
    matched = torch.tensor([1, 0, 1])
    return inputs(device, dtype, labels=LABELS, matched=matched, **more)


def check_float32(device, norm, task, sizes=False):
    reference, fast = (model.train() for model in models(device, norm=norm, task=task))
    given = (task_inputs if task else inputs)(device, **({"pixel_size": SIZES} if sizes else {}))
    expected, wanted = trained(reference, given)
    found, got = trained(fast, given)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)  # what a drop-in promises
    assert distance(got, wanted) < ROUNDING[torch.float32][1]


def check_half(device, dtype, norm, task):
    """Errors against the float32 reference at most twice those of the reference in half precision."""
    make = task_inputs if task else inputs
    reference = models(device, norm=norm, task=task)[0].train()
    exact, wanted = trained(reference, make(device))
    errors = []
    for model in models(device, dtype, norm=norm, task=task):
        found, got = trained(model.train(), make(device, dtype))
        errors.append((distance(found, exact), distance(got, wanted)))
    (output, gradient), (fast_output, fast_gradient) = errors
    # A rounding or two beside what is promised: the reference can come out exact by luck.
    slack = 2 * torch.finfo(dtype).eps
    assert 0 < output < 0.2 and 0 < gradient < 0.5  # or the bounds would say nothing
    assert fast_output <= 2 * output + slack
    assert fast_gradient <= 2 * gradient + slack


def check_curve(device, norm, steps=20):
    """Losses of `steps` steps without dropout, in float32."""
    curves = []
    for model in models(device, norm=norm, task=True):
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        curve = []
        for step in range(steps):
            optimizer.zero_grad()
            given = task_inputs(device, positions=None, seed=step)
            loss = model(**given).loss
            loss.backward()
            optimizer.step()
            curve.append(loss.detach())
        curves.append(torch.stack(curve).cpu())
    expected, found = curves
    assert expected[-5:].mean() < expected[:5].mean()
    # Rounding makes 2e-7 on a CPU; other kernels add up in more orders, and a wrong term shows far above.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def check_dropout(device, dtype):
    """A seed repeats a step, and activation checkpointing changes none of its gradients but by rounding."""
    more = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3, "norm": "frozen"}
    results = []
    for checkpoints, seed in ((False, 1), (False, 1), (True, 1), (False, 2)):
        model = models(device, dtype, **more)[1].train()
        if checkpoints:
            model.gradient_checkpointing_enable()
        torch.manual_seed(seed)
        results.append(trained(model, inputs(device, dtype)))
    (out, got), *others = results
    near, near_gradients = ROUNDING[dtype]
    for other, wanted in others[:2]:
        assert distance(other, out) < near and distance(wanted, got) < near_gradients
    assert distance(others[2][0], out) > 0.05
    assert distance(others[2][1], got) > 2 * near_gradients


def check_dropout_of_forward_and_backward_agree(device, dtype, name):
    """Attention is linear in its values, with dropout too: <out, g> is <values, their gradient>."""
    from tests.test_packed_attention import HEADS, SIZE, layer, packing_of

    packing = packing_of([5, 0, 40, 17])
    packing.spans.starts = packing.spans.starts.to(device)
    torch.manual_seed(2)
    query, key, value, grad = torch.randn(4, 62, HEADS * SIZE, device=device).to(dtype)
    value.requires_grad_()
    with attention_that_ran() as ran:
        out = packed_attention.attend(layer(0.5), query, key, value, packing, None)
    assert ran == [name]
    (grad_value,) = torch.autograd.grad(out, value, grad)
    left, right = ((a.double() * b.double()).sum() for a, b in ((out, grad), (value, grad_value)))
    # 1,488 products, each of whose factors was rounded once: their errors add up as a random walk does.
    scale = (out.double() * grad.double()).square().sum().sqrt()
    assert abs(left - right) <= 8 * torch.finfo(dtype).eps * scale
    plain = packed_attention.attend(layer(), query, key, value, packing, None)
    assert distance([out], [plain]) > 0.1


def check_compiled(device, dtype, backend):
    """The whole fast model under torch.compile, graph breaks and all."""
    model = models(device, dtype, norm="frozen")[1].train()
    given = inputs(device, dtype)
    expected, wanted = trained(model, given)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend)
    out = compiled(**given)
    found = [out.last_hidden_state.float(), out.pooler_output.float()]
    model.zero_grad()
    projected(*found).backward()
    near, near_gradients = ROUNDING[dtype]
    assert distance(found, expected) < near
    assert distance(gradients(model), wanted) < near_gradients


def sampled_embedding(model, features, valid_grid, grid, image_index, seed, keys):
    """What draws and gathers before the Transformer; it reads no number from the device."""
    places = model.choose(valid_grid[image_index], grid, seed, keys)
    return places, model.project(features, places, image_index)


def check_downstream(device, dtype, kind):
    """A step of a downstream task: the reference's in float32, in half precision within twice its error."""
    wide = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 256}
    given = inputs_of(kind, places=True)
    given = {name: value.to(device) for name, value in given.items()}
    results = []
    for width in (torch.float32, dtype):
        for model in pair_of(kind, norm="frozen", **wide):
            model.to(device, width).train().zero_grad()
            out = model(**(given | {"pixel_values": given["pixel_values"].to(width)}))
            out.loss.backward()
            results.append(([out.loss.detach(), out[OUTPUT[kind]].detach().float()], gradients(model)))
    exact, *others = results
    (error, gradient), *halves = [
        (distance(found, exact[0]), distance(got, exact[1])) for found, got in others
    ]
    assert error < ROUNDING[torch.float32][0] and gradient < ROUNDING[torch.float32][1]
    if dtype != torch.float32:
        slack = 2 * torch.finfo(dtype).eps  # as in check_half
        (error, gradient), (fast_error, fast_gradient) = halves
        assert fast_error <= 2 * error + slack and fast_gradient <= 2 * gradient + slack


def check_nothing_refused():
    """cuDNN had an engine for every convolution that was asked for."""
    assert not fused_convolution._refused
