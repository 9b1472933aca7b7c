"""Attention over packed rows: the three implementations, which is chosen, and the model over each of them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pixelbert_fast.model import packed_attention
from pixelbert_fast.model.fast_encoder import compute_layer
from pixelbert_fast.model.packed_attention import IMPLEMENTATIONS, attend, choose, why_not_varlen
from pixelbert_fast.model.packing import Packing, Spans
from pixelbert_fast.model.regions import EAGER
from tests.flash_emulation import emulated_flash
from tests.small_models import (
    INDEX,
    MASK,
    assert_same_gradients,
    config,
    gradients,
    images,
    pair,
    projected,
    run,
    text,
)

HEADS, SIZE = 3, 8
LENGTHS = {
    "ragged": [5, 1, 7, 2],
    "equal": [4, 4],
    "some-empty": [0, 3, 0, 0, 6, 0],
    "all-empty": [0, 0],
    "no-sequence": [],
}


@pytest.fixture(params=["each", "padded", "varlen", "batched"])
def implementation(request, monkeypatch):
    monkeypatch.setattr(packed_attention, "choose", lambda *_: request.param)
    monkeypatch.setattr(packed_attention, "worth_padding", lambda _: False)  # "each" stays "each"
    with emulated_flash() as emulation:
        yield request.param
    assert bool(emulation.calls) <= (request.param == "varlen")


def packing_of(lengths):
    mask = torch.zeros(len(lengths), max(lengths, default=0) + 2, dtype=torch.bool)
    for row, length in zip(mask, lengths, strict=True):
        row[torch.randperm(len(row))[:length]] = True
    return Packing(mask)


def layer(dropout=0.0):
    return SimpleNamespace(
        num_attention_heads=HEADS,
        attention_head_size=SIZE,
        scaling=SIZE**-0.5,
        dropout=nn.Dropout(dropout),
        training=True,
    )


def rows_of(count, dtype=torch.float64):
    """Queries, keys and values as the model has them: slices of one product."""
    product = torch.randn(count, 3 * HEADS * SIZE, dtype=torch.float64).to(dtype).requires_grad_()
    return product, product.split(HEADS * SIZE, dim=1)


def by_hand(query, key, value, packing, wanted):
    """Row after row, from the definition."""
    owner = torch.repeat_interleave(torch.arange(len(packing.spans.lengths)), packing.spans.starts.diff())
    asked = torch.arange(len(key)) if wanted is None else wanted
    out = []
    for row, number in zip(query, asked.tolist(), strict=True):
        own = (owner == owner[number]).nonzero()[:, 0]
        parts = []
        for q, k, v in zip(
            row.split(SIZE), key[own].split(SIZE, dim=1), value[own].split(SIZE, dim=1), strict=True
        ):
            parts.append((k @ q / SIZE**0.5).softmax(0) @ v)
        out.append(torch.cat(parts))
    return torch.stack(out) if out else query


def wanted_of(choice, packing):
    count = len(packing.rows)
    if choice == "all":
        return None
    if choice == "none":
        return torch.zeros(0, dtype=torch.int64)
    # Of some sequences several, of others none.
    return (torch.arange(count) % 3 == 0).nonzero()[:, 0][: max(count // 4, 1)]


@pytest.mark.parametrize("choice", ["all", "some", "none"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_equals_the_definition(implementation, lengths, choice):
    torch.manual_seed(0)
    packing = packing_of(lengths)
    wanted = wanted_of(choice, packing)
    product, (query, key, value) = rows_of(len(packing.rows))
    results = []
    for compute in (lambda *given: attend(layer(), *given), by_hand):
        asked = query if wanted is None else query[wanted]
        out = compute(asked, key, value, packing, wanted)
        assert out.shape == asked.shape
        (grad,) = torch.autograd.grad(projected(out), product)
        results.append((out, grad))
    (found, grad), (expected, wanted_grad) = results
    # Sums of at most 8 float64 terms of order 1, rounded in another order.
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(grad, wanted_grad, rtol=1e-11, atol=1e-11)


def test_keys_that_nobody_asks_have_a_gradient_of_zero(implementation):
    """None instead would make ranks disagree on which parameters a step trains."""
    packing = packing_of([2, 3])
    query, key, value = (torch.randn(rows, HEADS * SIZE, requires_grad=True) for rows in (0, 5, 5))
    out = attend(layer(), query, key, value, packing, torch.zeros(0, dtype=torch.int64))
    out.sum().backward()
    assert torch.equal(key.grad, torch.zeros_like(key)) and torch.equal(value.grad, torch.zeros_like(value))


def test_bfloat16_is_as_near_as_rounding_allows(implementation):
    torch.manual_seed(0)
    packing = packing_of(LENGTHS["ragged"])
    product, rows = rows_of(len(packing.rows), torch.bfloat16)
    found = attend(layer(), *rows, packing, None)
    expected = by_hand(*(row.double() for row in rows), packing, None)
    # Inputs are the same numbers; probabilities and the sum are each rounded once to 8 bits.
    torch.testing.assert_close(found.double(), expected, rtol=2**-6, atol=2**-6)
    (grad,) = torch.autograd.grad(projected(found), product)
    (wanted,) = torch.autograd.grad(projected(expected), product)
    torch.testing.assert_close(grad.double(), wanted.double(), rtol=2**-5, atol=2**-5)


def test_dropout_repeats_with_the_seed(implementation):
    packing = packing_of(LENGTHS["ragged"])
    product, rows = rows_of(len(packing.rows))
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        out = attend(layer(0.4), *rows, packing, None)
        results.append((out, torch.autograd.grad(projected(out), product)[0]))
    (first, first_grad), (second, second_grad), (other, _) = results
    assert torch.equal(first, second) and torch.equal(first_grad, second_grad)
    assert not torch.equal(first, other)


def test_dropout_keeps_the_mean(implementation):
    packing = packing_of([6, 3])
    rows = tuple(row.detach() for row in rows_of(9)[1])
    torch.manual_seed(0)
    draws = torch.stack([attend(layer(0.25), *rows, packing, None) for _ in range(600)])
    exact = attend(layer(), *rows, packing, None)
    # 216 means of 600 draws: none lies 5 standard errors off but in one run of thousands.
    error = draws.std(0) / 600**0.5
    assert ((draws.mean(0) - exact).abs() <= 5 * error + 1e-12).all()


@pytest.mark.parametrize("choice", ["all", "some"])
def test_flash_takes_dropout_forward_and_backward(monkeypatch, choice):
    """The derivative with the same probabilities dropped, by PyTorch's formula and by differences."""
    monkeypatch.setattr(packed_attention, "choose", lambda *_: "varlen")
    packing = packing_of([3, 0, 2])
    wanted = wanted_of(choice, packing)

    def dropped(product):
        torch.manual_seed(7)
        query, key, value = product.split(HEADS * SIZE, dim=1)
        return attend(layer(0.5), query if wanted is None else query[wanted], key, value, packing, wanted)

    with emulated_flash() as emulation:
        assert torch.autograd.gradcheck(dropped, rows_of(5)[0], fast_mode=True, check_undefined_grad=False)
    assert set(emulation.calls) == {("forward", 0.5), ("backward", 0.5)}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_real_operators_take_these_arguments(monkeypatch, dropout):
    """On tensors without memory: the schema and the derivative are PyTorch's, and no kernel runs."""
    monkeypatch.setattr(packed_attention, "choose", lambda *_: "varlen")
    lengths = [3, 0, 4]
    packing = SimpleNamespace(spans=Spans(torch.zeros(4, dtype=torch.int32, device="meta"), lengths))
    product = torch.empty(7, 3 * HEADS * SIZE, dtype=torch.bfloat16, device="meta", requires_grad=True)
    out = attend(layer(dropout), *product.split(HEADS * SIZE, dim=1), packing, None)
    assert (out.shape, out.dtype) == ((7, HEADS * SIZE), torch.bfloat16)
    out.sum().backward()
    assert product.grad.shape == product.shape


GPU = ("cuda", torch.bfloat16, 64, (9, 0))


@pytest.mark.parametrize(
    ("place", "given", "word"),
    [
        (0, "cpu", "NVIDIA"),
        (0, "mps", "NVIDIA"),
        (1, torch.float32, "float32"),
        (1, torch.float64, "float64"),
        (2, 12, "12"),
        (2, 256, "256"),
        (3, (7, 5), "(7, 5)"),
        (3, None, "None"),
    ],
)
def test_why_the_variable_length_kernel_cannot_run(monkeypatch, place, given, word):
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    assert why_not_varlen(*GPU) is None
    assert why_not_varlen("cuda", torch.float16, 192, (8, 0)) is None
    asked = [*GPU]
    asked[place] = given
    assert word in why_not_varlen(*asked)


def test_the_variable_length_kernel_can_be_missing_or_switched_off(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: False)
    assert "built without" in why_not_varlen(*GPU)
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.backends.cuda, "flash_sdp_enabled", lambda: False)
    assert "switched off" in why_not_varlen(*GPU)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert "NVIDIA" in why_not_varlen(*GPU)


def test_the_choice_by_device(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    cuda = torch.device("cuda")
    assert choose(torch.device("cpu"), torch.bfloat16, 64) == "each"
    assert choose(cuda, torch.bfloat16, 64) == "varlen"
    assert choose(cuda, torch.float32, 64) == "padded"
    assert choose(torch.device("meta"), torch.bfloat16, 64) == "padded"
    assert {choose(cuda, dtype, 64) for dtype in (torch.float16, torch.float64)} <= set(IMPLEMENTATIONS)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_model_over_each(implementation, dropout):
    """With activation checkpointing too: what is computed again drops what was dropped."""
    more = {"attention_mask": MASK, "image_index": INDEX, "seed": 3}
    results = []
    for checkpoints in (False, True):
        settings = config(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
        reference, fast = pair(settings, torch.float64)
        if checkpoints:
            fast.gradient_checkpointing_enable()
        torch.manual_seed(4)
        results.append(run(fast.train(), text(3), pixel_values=images(torch.float64), **more))
    if not dropout:
        results.append(run(reference.train(), text(3), pixel_values=images(torch.float64), **more))
    (out, got), *others = results
    for other, wanted in others:
        torch.testing.assert_close(other.last_hidden_state, out.last_hidden_state, rtol=1e-11, atol=1e-11)
        # As in test_fast_pixelbert.py: batch norm divides by the deviation of a few places.
        assert_same_gradients(got, wanted, 1e-8)


def test_few_rows_of_the_model_over_each(implementation):
    from pixelbert_fast import PixelBertForPreTraining

    labels = torch.tensor([[-100, 7, -100, 9, -100, -100, -100]] * 2 + [[-100] * 7])
    results = []
    for fast in (False, True):
        torch.manual_seed(0)
        model = PixelBertForPreTraining(config(norm="frozen"), fast=fast).double().eval()
        more = {"labels": labels, "matched": torch.tensor([1, 1, 0]), "image_index": INDEX}
        out = model(text(3), MASK, images(torch.float64), **more)
        out.loss.backward()
        results.append((out, gradients(model)))
    (expected, wanted), (found, got) = results
    torch.testing.assert_close(found.mlm_logits, expected.mlm_logits, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found.itm_logits, expected.itm_logits, rtol=1e-11, atol=1e-11)
    assert_same_gradients(got, wanted, 1e-8)


def test_a_layer_is_one_graph(implementation):
    """What a model compiles by layer; other lengths may be another graph, but never a broken one."""
    model = pair(config())[1].eval()
    torch._dynamo.reset()
    compiled = torch.compile(compute_layer, backend="aot_eager", fullgraph=True)
    for lengths in ([7, 4, 2], [3, 6, 0]):
        packing = packing_of(lengths)
        hidden = torch.randn(len(packing.rows), 32)
        some = torch.zeros(packing.shape, dtype=torch.bool).flatten()
        some[packing.rows[::4]] = True
        for wanted in (None, packing.among_rows(some.unflatten(0, packing.shape))):
            arguments = (model.encoder.layer[0], EAGER, hidden, packing, wanted)
            # Float32 values of order 1 after sums of 64 terms in another order.
            torch.testing.assert_close(compiled(*arguments), compute_layer(*arguments), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layers", [2, 5])
def test_lengths_are_read_once_a_step(implementation, layers, monkeypatch):
    """Reading them waits for a GPU: no layer may, nor its second computation in the backward."""
    made = []
    original = Spans.__init__

    def counted(self, starts, lengths):
        made.append(lengths)
        original(self, starts, lengths)

    monkeypatch.setattr(Spans, "__init__", counted)
    model = pair(config(num_hidden_layers=layers))[1].train()
    model.gradient_checkpointing_enable()
    tokens = model.embed(text(3), MASK, images(), image_index=INDEX)
    wanted = torch.zeros(3, 7, dtype=torch.bool)
    wanted[:, 0] = wanted[0, 1] = True
    rows = model.encode_rows(tokens, wanted)
    assert rows.shape == (4, 32)
    rows.sum().backward()
    assert [sum(lengths) for lengths in made] == [int(tokens.mask.sum()), 4]
    assert made[1] == [2, 1, 1]
