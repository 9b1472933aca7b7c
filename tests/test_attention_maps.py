"""Attention maps of chosen layers, heads and queries: the reference's numbers, and no work beyond them."""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pixelbert_fast import AttentionRequest, PixelBertForPreTraining
from pixelbert_fast.model import packing
from pixelbert_fast.ops import arguments
from tests.small_models import (
    INDEX,
    MASK,
    PLACES,
    assert_same_gradients,
    config,
    gradients,
    images,
    pair,
    projected,
    stir,
    text,
)

# [CLS], a pixel that is there in one row and not in another, a word piece that is padding in two, none.
QUERIES = torch.tensor([[0, 8, 6, -1], [3, 9, 5, 7], [9, 0, 4, 0]])
LENGTH = 10  # 7 word pieces, 3 places
REAL = torch.cat([MASK != 0, PLACES >= 0], dim=1)
REQUESTS = {
    "everything": AttentionRequest(),
    "last-layer": AttentionRequest(layers=[-1]),
    "order-and-duplicates": AttentionRequest(layers=(2, 0, -1), heads=[3, 0, 3]),
    "one-head": AttentionRequest(heads=torch.tensor([-2])),
    "queries": AttentionRequest(queries=QUERIES),
    "all-three": AttentionRequest(range(1, 3), [2, 1], QUERIES.int()),
    "cls-only": AttentionRequest([0], None, torch.zeros(3, 1, dtype=torch.int64)),
    "no-query": AttentionRequest(None, [1], QUERIES[:, :0]),
    "no-head": AttentionRequest(None, [], QUERIES),
    "no-layer": AttentionRequest(layers=[]),
}


def both(settings, dtype=torch.float64):
    return [model.eval() for model in pair(settings, dtype)]


def ask(model, asked, dtype=torch.float64, mask=MASK, places=PLACES):
    inputs = {"image_index": INDEX, "positions": places, "output_attentions": asked}
    return model(text(3), mask, images(dtype), **inputs)


def expected_maps(whole, request, real=REAL):
    """What `request` asks for, taken from the whole maps of the reference."""
    layers = range(len(whole)) if request.layers is None else request.layers
    heads = slice(None) if request.heads is None else list(request.heads)
    queries = torch.arange(real.shape[1]).repeat(len(real), 1) if request.queries is None else request.queries
    row = torch.arange(len(real))[:, None]
    read = (queries >= 0) & real[row, queries.long()]
    return [
        (whole[layer][:, heads].transpose(1, 2)[row, queries.long()] * read[..., None, None]).transpose(1, 2)
        for layer in layers
    ]


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
def test_maps_and_gradients_are_those_of_the_references_whole_maps(request_):
    models = both(config(norm="frozen"))
    whole = ask(models[0], True).attentions
    expected = expected_maps(whole, request_)
    wanted = None
    if sum(one.numel() for one in expected):
        projected(*expected).backward()
        wanted = gradients(models[0])
    for model in models:
        model.zero_grad()
        out = ask(model, request_)
        assert isinstance(out.attentions, tuple) and len(out.attentions) == len(expected)
        for found, right in zip(out.attentions, expected, strict=True):
            assert found.shape == right.shape and found.shape[-1] == LENGTH
            # Some thousand float64 roundings of values of order 1.
            torch.testing.assert_close(found, right, rtol=1e-11, atol=1e-11)
            assert (found.masked_select(~REAL[:, None, None]) == 0).all()
        if wanted is not None:
            projected(*out.attentions).backward()
            # Summed over more terms than a value of a map is.
            assert_same_gradients(gradients(model), wanted, 1e-8)


def test_float32_maps_are_within_what_a_drop_in_promises():
    reference, fast = both(config(norm="frozen"), torch.float32)
    expected, found = (ask(m, REQUESTS["all-three"], torch.float32).attentions for m in (reference, fast))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_other_outputs_are_the_same_bits_with_maps_and_without():
    for model in both(config(norm="frozen")):
        plain, asked = ask(model, False), ask(model, REQUESTS["all-three"])
        assert plain.attentions is None
        assert torch.equal(asked.last_hidden_state, plain.last_hidden_state)
        assert torch.equal(asked.pooler_output, plain.pooler_output)


def test_whole_maps_keep_a_distribution_in_the_rows_of_padding():
    for model in both(config(norm="frozen")):
        for found in ask(model, True).attentions:
            assert found.shape == (3, 4, LENGTH, LENGTH)
            # Sums of ten float64 roundings.
            torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]), rtol=0, atol=1e-14)


class Linears(TorchFunctionMode):
    """Counts `torch.nn.functional.linear`: how many rows it reads and how many features it gives."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is torch.nn.functional.linear:
            self.calls.append((out.shape[:-1].numel(), out.shape[-1]))
        return out


def test_only_the_queries_and_heads_asked_for_are_projected():
    asked = AttentionRequest(layers=[1], heads=[2, 0], queries=QUERIES)
    reference, fast = both(config(norm="frozen"))
    rows = int(REAL.sum())
    queries = sum(bool(REAL[s, q]) for s in range(3) for q in QUERIES[s].tolist() if q >= 0)
    # Query, then key, of two heads of 8 features each. The reference reads padding too.
    expected = {reference: [(QUERIES.numel(), 16), (3 * LENGTH, 16)], fast: [(queries, 16), (rows, 16)]}
    for model, more in expected.items():
        with Linears() as plain:
            ask(model, False)
        with Linears() as with_maps:
            ask(model, asked)
        left = list(with_maps.calls)
        for call in plain.calls:
            left.remove(call)
        assert left == more


def test_the_fast_model_pads_nothing_but_the_features_of_what_is_asked(monkeypatch):
    padded = []
    original = packing.Packing.unpack

    def recorded(self, packed):
        padded.append(list(original(self, packed).shape))
        return original(self, packed)

    monkeypatch.setattr(packing.Packing, "unpack", recorded)
    _, fast = both(config(norm="frozen"))
    ask(fast, AttentionRequest(layers=[1], heads=[2], queries=QUERIES))
    assert padded == [[3, 4, 1, 8], [3, LENGTH, 1, 8], [3, LENGTH, 32]]


class Sizes(TorchDispatchMode):
    """The shape of every tensor of floating point that an operation gives."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, torch.Tensor) and one.is_floating_point():
                self.shapes.add(tuple(one.shape))
        return out


def test_no_tensor_is_as_large_as_a_whole_map_where_few_rows_are_asked():
    models = both(config(norm="frozen"))
    pixels = models[0].embed_pixels(torch.randn(1, 3, 192, 192, dtype=torch.float64))
    index = torch.zeros(2, dtype=torch.int64)
    length = 7 + pixels.values.shape[1]
    assert length > 100
    for model in models:
        shapes = {}
        for asked in (True, AttentionRequest(queries=torch.zeros(2, 3, dtype=torch.int64))):
            with torch.no_grad(), Sizes() as sizes:
                model(text(2), None, pixel_embeddings=pixels, image_index=index, output_attentions=asked)
            shapes[asked is True] = {s for s in sizes.shapes if s[-2:] == (length, length)}
        assert (2, 4, length, length) in shapes[True]
        assert not shapes[False]


BAD = {
    "list": ([0, -1], TypeError, r"output_attentions must be True, False or an AttentionRequest, got list"),
    "empty-list": ([], TypeError, "output_attentions must be True, False or an AttentionRequest"),
    "number": (1, TypeError, "output_attentions must be True, False or an AttentionRequest, got int 1"),
    "layer": (AttentionRequest([3]), IndexError, r"AttentionRequest.layers must lie in -3 .. 2 .*, got 3"),
    "negative-layer": (AttentionRequest([0, -4]), IndexError, r"layers must lie in -3 .. 2 .*, got -4"),
    "one-layer": (AttentionRequest(1), TypeError, "layers must be a sequence of integers or None, got int 1"),
    "half-a-layer": (AttentionRequest([0.5]), TypeError, "layers must be a sequence of integers"),
    "head": (AttentionRequest(None, [4]), IndexError, r"AttentionRequest.heads must lie in -4 .. 3"),
    "mask-of-heads": (
        AttentionRequest(None, torch.ones(4) > 0),
        TypeError,
        "heads must be a sequence of int",
    ),
    "set-of-heads": (AttentionRequest(None, {1, 2}), TypeError, "heads must be a sequence of integers"),
    "half-tensor": (
        AttentionRequest(None, torch.tensor([0.5])),
        TypeError,
        "heads must be a sequence of int",
    ),
    "list-of-tensors": (AttentionRequest(None, [torch.tensor(0.5)]), TypeError, "heads must be a sequence"),
    "named-head": (AttentionRequest(None, "a"), TypeError, "heads must be a sequence of integers"),
    "list-of-queries": (AttentionRequest(queries=[[0]] * 3), TypeError, r"queries must be an integer tensor"),
    "float-queries": (AttentionRequest(queries=QUERIES.double()), TypeError, r"integer tensor \[3, Q\]"),
    "flat-queries": (
        AttentionRequest(queries=QUERIES[0]),
        ValueError,
        r"queries must be \[3, Q\], got int64",
    ),
    "rows-missing": (AttentionRequest(queries=QUERIES[:2]), ValueError, r"queries must be \[3, Q\]"),
    "far-query": (
        AttentionRequest(queries=QUERIES + 1),
        IndexError,
        r"queries must lie in -1 .. 9 .*, got 10",
    ),
    "query-before": (AttentionRequest(queries=QUERIES - 1), IndexError, r"must lie in -1 .. 9 .*, got -2"),
}


@pytest.mark.parametrize(("asked", "error", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_refused_in_one_sentence(asked, error, message):
    for model in both(config(norm="frozen")):
        for call in (model, model.pool):
            with pytest.raises(error, match=message) as raised:
                call(
                    text(3),
                    MASK,
                    images().double(),
                    image_index=INDEX,
                    positions=PLACES,
                    output_attentions=asked,
                )
            assert "\n" not in str(raised.value)


def test_a_place_outside_is_nan_where_values_may_not_be_looked_at(monkeypatch):
    queries = torch.tensor([[0, LENGTH], [-2, 3], [9, 4]])
    models = both(config(norm="frozen"))
    monkeypatch.setattr(arguments, "reads_values", lambda tensor: False)
    for model in models:
        for found in ask(model, AttentionRequest(queries=queries)).attentions:
            outside = torch.tensor([[False, True], [True, False], [False, False]])
            assert torch.equal(found.isnan().all(-1).all(1), outside)
            assert torch.equal(found.isnan().any(-1).any(1), outside)


def test_a_sequence_of_which_nothing_is_read_gives_zeros():
    places, mask = PLACES.clone(), MASK.clone()
    places[2], mask[2] = -1, 0
    for model in both(config(norm="frozen")):
        out = ask(model, AttentionRequest(queries=QUERIES), mask=mask, places=places)
        assert all((one[2] == 0).all() for one in out.attentions)
        projected(*out.attentions).backward()
        assert all(value.isfinite().all() for value in gradients(model).values())


@pytest.mark.parametrize(
    ("sequences", "words", "pixels"), [(0, 7, 3), (3, 1, 3), (3, 7, 0), (3, 1, 0), (0, 1, 0)]
)
def test_sizes_of_zero_and_one(sequences, words, pixels):
    reference, fast = both(config(norm="frozen"))
    queries = torch.zeros(sequences, 2, dtype=torch.int64)
    inputs = {"image_index": INDEX[:sequences], "positions": PLACES[:sequences, :pixels]}
    for asked in (True, AttentionRequest([0, 2], [1], queries), AttentionRequest([1])):
        expected, found = (
            m(text(sequences, words), None, images().double(), output_attentions=asked, **inputs).attentions
            for m in (reference, fast)
        )
        for one, other in zip(found, expected, strict=True):
            read = torch.ones(one.shape[0], 1, one.shape[2], 1)
            if one.shape[2] == words + pixels:
                read[:, 0, words:, 0] = inputs["positions"] >= 0
            torch.testing.assert_close(one * read, other * read, rtol=1e-11, atol=1e-11)
            assert one.shape[0] == sequences and one.shape[-1] == words + pixels


@pytest.mark.parametrize("fast", [False, True])
def test_pretraining_passes_a_request_on(fast):
    torch.manual_seed(0)
    model = stir(PixelBertForPreTraining(config(norm="frozen"), fast=fast)).eval()
    labels = torch.where(MASK == 1, 9, -100)
    inputs = {"image_index": INDEX, "positions": PLACES, "labels": labels, "matched": torch.tensor([1, 0, 1])}
    plain, asked = (
        model(text(3), MASK, images(), output_attentions=maps, **inputs)
        for maps in (None, AttentionRequest([-1], [0], QUERIES))
    )
    assert plain.attentions is None
    assert [one.shape for one in asked.attentions] == [(3, 1, 4, LENGTH)]
    # Two orders of the same float32 sums, of order 1.
    torch.testing.assert_close(asked.loss, plain.loss, rtol=1e-5, atol=1e-5)
    with pytest.raises(TypeError, match="output_attentions must be"):
        model(text(3), MASK, images(), output_attentions=[], **inputs)


def test_bfloat16_and_autocast_err_at_most_twice_as_far_as_the_reference():
    asked = AttentionRequest([-1, 0], [3, 1], QUERIES)
    with torch.no_grad():
        exact = ask(both(config(norm="frozen"), torch.float32)[0], asked, torch.float32).attentions
    for autocast in (False, True):
        errors = []
        dtype = torch.float32 if autocast else torch.bfloat16
        for model in both(config(norm="frozen"), dtype):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                found = ask(model, asked, dtype).attentions
            squares = [(one.float() - right).square().mean() for one, right in zip(found, exact, strict=True)]
            errors.append(float(torch.stack(squares).mean().sqrt()))
        # A rounding of values below 1 beside what is promised.
        assert errors[1] <= 2 * errors[0] + 2**-9
        assert errors[0] < 0.05  # or the bound above would say nothing
