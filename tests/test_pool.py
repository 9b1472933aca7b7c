"""`pool`: what a task reads that needs [CLS] alone, equal in both models and cheaper in the fast one."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from pixelbert_fast import AttentionRequest, PixelBertForPreTraining
from tests.small_models import (
    INDEX,
    MASK,
    PLACES,
    SIZES,
    assert_same_gradients,
    config,
    gradients,
    images,
    pair,
    projected,
    stir,
    text,
)

NOTHING_READ = MASK * torch.tensor([[1], [1], [0]])
NO_CLS = MASK * torch.tensor([[0, 1, 1, 1, 1, 1, 1], [1] * 7, [1] * 7])
EMPTY = PLACES.clone()
EMPTY[2] = -1
CASES = {
    "an-image-each": ((2, None), {}),
    "sizes-differ": ((3, MASK), {"image_index": INDEX, "pixel_size": SIZES}),
    "given-places": ((3, MASK), {"image_index": INDEX, "positions": PLACES}),
    "text-of-padding": ((3, NOTHING_READ), {"image_index": INDEX}),
    "cls-is-padding": ((3, NO_CLS), {"image_index": INDEX}),
    "one-reads-nothing": ((3, NOTHING_READ), {"image_index": INDEX, "positions": EMPTY}),
    "all-read-nothing": ((3, MASK * 0), {"image_index": INDEX, "positions": PLACES * 0 - 1}),
    "no-pixel": ((3, MASK), {"image_index": INDEX, "positions": PLACES[:, :0]}),
    "cls-alone": ((3, None, 1), {"image_index": INDEX}),
    "no-sequence": ((0, None), {"image_index": INDEX[:0]}),
}


def all_gradients(model):
    """Zeros where a parameter has none: without a sequence the reference leaves its layers out."""
    none = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    return none | gradients(model)


def inputs_of(case, dtype=torch.float64):
    (rows, mask, *words), more = CASES[case]
    return (text(rows, *words), mask, images(dtype)), more


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_outputs_and_gradients_are_those_of_the_references_forward(norm, case, train):
    inputs, more = inputs_of(case)
    reference, fast = (model.train(train) for model in pair(config(norm=norm), torch.float64))
    state = {name: value.clone() for name, value in reference.state_dict().items()}
    expected = reference(*inputs, seed=3, **more)
    projected(expected.pooler_output).backward()
    wanted = all_gradients(reference)
    for model in (reference, fast):
        model.zero_grad()
        model.load_state_dict(state)  # a batch norm in training mode has moved its averages
        found = model.pool(*inputs, seed=3, **more)
        assert found.last_hidden_state is None and found.attentions is None
        assert list(found) == ["pooler_output", "positions", "pixel_mask"]
        assert torch.equal(found.positions, expected.positions)
        assert torch.equal(found.pixel_mask, expected.pixel_mask)
        # Some thousand float64 roundings of values of order 1.
        torch.testing.assert_close(found.pooler_output, expected.pooler_output, rtol=1e-11, atol=1e-11)
        projected(found.pooler_output).backward()
        # A gradient sums some thousand terms more.
        assert_same_gradients(all_gradients(model), wanted, 1e-8)


class RowsRead(TorchFunctionMode):
    """How many rows `torch.nn.functional.linear` reads with one weight."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.rows = weight, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.linear and args[1] is self.weight:
            self.rows.append(args[0].shape[:-1].numel())
        return function(*args, **(kwargs or {}))


def rows_read(call, layer):
    with RowsRead(layer.intermediate.dense.weight) as read:
        call()
    return read.rows


@pytest.mark.parametrize("asked", [None, True, AttentionRequest([-1], [0])], ids=["plain", "maps", "request"])
def test_the_last_layer_computes_one_row_a_sequence(asked):
    inputs, more = inputs_of("given-places")
    _, fast = pair(config(norm="frozen"), torch.float64)
    *others, last = fast.eval().encoder.layer
    packed = int(MASK.sum() + (PLACES >= 0).sum())

    def pool():
        fast.pool(*inputs, output_attentions=asked, **more)

    assert rows_read(pool, last) == [3]
    assert all(rows_read(pool, layer) == [packed] for layer in others)
    assert rows_read(lambda: fast(*inputs, **more), last) == [packed]


@pytest.mark.parametrize("asked", [True, AttentionRequest([-1, 0], [2], torch.tensor([[0], [8], [3]]))])
def test_pool_gives_the_maps_of_forward(asked):
    inputs, more = inputs_of("given-places")
    for model in pair(config(norm="frozen"), torch.float64):
        expected = model.eval()(*inputs, output_attentions=asked, **more).attentions
        found = model.pool(*inputs, output_attentions=asked, **more).attentions
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


def test_the_configuration_can_ask_pool_for_maps():
    inputs, more = inputs_of("given-places", torch.float32)
    for model in pair(config(norm="frozen", output_attentions=True)):
        assert len(model.pool(*inputs, **more).attentions) == model.config.num_hidden_layers
        assert model.pool(*inputs, output_attentions=False, **more).attentions is None


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_no_gradient(reentrant):
    inputs, more = inputs_of("given-places")
    results = []
    for checkpoints in (False, True):
        model = pair(config(norm="frozen"), torch.float64)[1].train()
        if checkpoints:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        projected(model.pool(*inputs, **more).pooler_output).backward()
        results.append(gradients(model))
    # The same operations in the same order, but for how a sum of gradients is taken.
    assert_same_gradients(results[1], results[0], 1e-12)


@pytest.mark.parametrize("mask", [MASK, NOTHING_READ, NO_CLS], ids=["read", "nothing", "no-cls"])
def test_pretraining_takes_cls_as_pool_does(mask):
    torch.manual_seed(0)
    model = stir(PixelBertForPreTraining(config(norm="frozen"))).double().eval()
    inputs = (text(3), mask, images(torch.float64))
    labels = torch.full_like(MASK, -100)
    labels[0, 2] = 9
    found = model(*inputs, labels=labels, image_index=INDEX).itm_logits
    pooled = model.pixelbert.pool(*inputs, image_index=INDEX).pooler_output
    # One more row in the last layer may order a sum in another way.
    torch.testing.assert_close(found, model.itm_head(pooled), rtol=1e-12, atol=1e-12)


def test_bfloat16_errs_at_most_twice_as_far_as_the_reference():
    inputs, more = inputs_of("given-places", torch.float32)
    with torch.no_grad():
        exact = pair(config(norm="frozen"))[0].eval()(*inputs, **more).pooler_output
    for autocast in (False, True):
        dtype = torch.float32 if autocast else torch.bfloat16
        inputs, more = inputs_of("given-places", dtype)
        errors = []
        for model in pair(config(norm="frozen"), dtype):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                pooled = model.eval().pool(*inputs, **more).pooler_output
            errors.append(float((pooled.float() - exact).square().mean().sqrt()))
        # Values are of order 1, a rounding of them 2**-9; a few of those beside what is promised.
        assert errors[1] <= 2 * errors[0] + 4 * 2**-9
        assert errors[0] < 0.1  # or the bound above would say nothing
