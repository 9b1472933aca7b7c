"""Compiled inference against the reference: every way to call it, and what it refuses."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pixelbert_fast import FastPixelBERT, PixelBERT
from pixelbert_fast.model import compilation, inference
from pixelbert_fast.model.compilation import can_compile
from pixelbert_fast.model.inference_shape import InferenceShape
from tests.compiling import compiling
from tests.small_models import config, text

INDEX = torch.tensor([0, 1, 1])
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] * 2 + [0] * 5])
SIZES = torch.tensor([[48, 64], [33, 40]])
# With -1 among the places; all lie within the smaller image's 2 x 2 grid.
PLACES = torch.tensor([[0, 5, -1], [1, -1, 0], [-1, -1, 4]])
SHAPE = InferenceShape(images=2, height=48, width=64, sequences=3, words=7)


def images(dtype=torch.float32, count=2, size=(48, 64)):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)


def pair(dtype=torch.float32, **overrides):
    """The reference and the fast model with the same weights; norms and biases do something."""
    torch.manual_seed(5)
    reference = PixelBERT(config(**overrides))
    for name, value in reference.state_dict().items():
        if name.endswith("running_var") or ("bn" in name and name.endswith("weight")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.1)
    fast = FastPixelBERT(config(**overrides))
    fast.load_state_dict(reference.state_dict())
    return reference.to(dtype).eval(), fast.to(dtype).eval()


def same(found, expected, tolerance):
    for name in ("last_hidden_state", "pooler_output"):
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance, msg=name)
    for name in ("positions", "pixel_mask"):
        assert torch.equal(found[name], expected[name]), name
        assert found[name].dtype == expected[name].dtype


@pytest.fixture
def eagerly(monkeypatch):
    """Prepares shapes without compiling them: all but the compiler's own work, in no time."""
    monkeypatch.setattr(inference, "compiles_or_warns", lambda device, what: False)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """(reference, compiled for two shapes), really compiled."""
    if can_compile("cpu") is not None:
        pytest.skip(can_compile("cpu"))
    reference, fast = pair(norm="batch")
    shapes = [SHAPE, InferenceShape(1, 48, 64, 2, 9, pixels=4, padded_images=True)]
    with compiling(tmp_path_factory.getbasetemp() / "inductor"):
        yield reference, fast.train().compile_for_inference(shapes)


# Float32 through a compiler that fuses and reorders sums: what a drop-in promises.
DROP_IN = 1e-4


def test_compiled_outputs_are_the_references(compiled):
    reference, run = compiled
    with torch.compiler.set_stance("fail_on_recompile"), torch.no_grad():
        for more in ({"attention_mask": MASK}, {"attention_mask": None}):
            more = {"image_index": INDEX, "pixel_values": images(), **more}
            same(run(text(3), **more), reference(text(3), **more), DROP_IN)
        smaller = {"pixel_values": images(count=1, size=(33, 50)), "positions": torch.tensor([[0, 1, -1]])}
        same(run(text(1, 5), **smaller), reference(text(1, 5), **smaller), DROP_IN)


@pytest.mark.parametrize("mode", ["grad", "no_grad", "inference", "autocast", "channels_last", "int32"])
def test_no_mode_of_the_caller_compiles_anew_or_changes_the_outputs(compiled, mode):
    reference, run = compiled
    inputs, ids = {"pixel_values": images(), "attention_mask": MASK, "image_index": INDEX}, text(3)
    with torch.no_grad():
        expected = reference(ids, **inputs)
    modes = {
        "no_grad": torch.no_grad,
        "inference": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    }
    with modes.get(mode, torch.enable_grad)(), torch.compiler.set_stance("fail_on_recompile"):
        if mode == "channels_last":
            inputs["pixel_values"] = images().contiguous(memory_format=torch.channels_last)
        elif mode == "int32":
            ids, inputs["image_index"] = ids.int(), INDEX.to(torch.int16)
            inputs["attention_mask"] = MASK.bool()
        elif mode == "grad":
            inputs["pixel_values"] = images().requires_grad_()
        found = run(ids.clone(), **{name: value.clone() for name, value in inputs.items()})
    assert not found.pooler_output.requires_grad
    same(found, expected, DROP_IN)


def test_threads_get_their_own_outputs(compiled):
    reference, run = compiled
    batches = [images().roll(shift, dims=3) for shift in range(6)]
    with torch.no_grad():
        expected = [reference(text(3), MASK, batch, image_index=INDEX) for batch in batches]
    start = threading.Barrier(2)

    def both(batch):
        start.wait(timeout=60)
        return run(text(3), MASK, batch, image_index=INDEX)

    with ThreadPoolExecutor(2) as pool, torch.compiler.set_stance("fail_on_recompile"):
        for found, wanted in zip(pool.map(both, batches), expected, strict=True):
            same(found, wanted, DROP_IN)


# From here on without the compiler, in float64: some thousand roundings of values of order 1.
EXACT = 1e-11


@pytest.mark.parametrize("order", ["project_pool", "pool_project"])
@pytest.mark.parametrize("norm", ["frozen", "batch"])
@pytest.mark.parametrize("places", [None, PLACES], ids=["every", "given"])
@pytest.mark.parametrize("sizes", [None, SIZES], ids=["one-size", "sizes-differ"])
def test_the_static_computation_is_the_references(eagerly, sizes, places, norm, order):
    reference, fast = pair(torch.float64, norm=norm, projection_order=order)
    more = {"image_index": INDEX, "pixel_size": sizes, "positions": places}
    pixels = None if places is None else 3
    shape = InferenceShape(2, 48, 64, 3, 7, pixels=pixels, padded_images=sizes is not None)
    run = fast.compile_for_inference([shape])
    for mask in (None, MASK):
        same(
            run(text(3), mask, images(torch.float64), **more),
            reference(text(3), mask, images(torch.float64), **more),
            EXACT,
        )


@pytest.mark.parametrize("places", [None, PLACES], ids=["every", "given"])
@pytest.mark.parametrize("sizes", [None, SIZES], ids=["one-size", "sizes-differ"])
def test_a_smaller_call_is_filled_up_and_cut_back(eagerly, sizes, places):
    reference, fast = pair(torch.float64)
    pixels = None if places is None else 6
    run = fast.compile_for_inference([InferenceShape(4, 80, 90, 5, 11, pixels=pixels, padded_images=True)])
    inputs = (text(3), MASK, images(torch.float64))
    more = {"image_index": INDEX, "pixel_size": sizes, "positions": places}
    same(run(*inputs, **more), reference(*inputs, **more), EXACT)


def test_a_mask_is_left_out_where_nothing_is_padded(eagerly, monkeypatch):
    _, fast = pair()
    seen = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(*args, attn_mask=None, **more):
        seen.append(attn_mask is not None)
        return attend(*args, attn_mask=attn_mask, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    for padded in (False, True):
        seen.clear()
        run = fast.compile_for_inference([InferenceShape(2, 48, 64, 2, 7, padded_text=padded)])
        run(text(2), None, images())
        assert set(seen) == {padded}
    tight = fast.compile_for_inference([InferenceShape(2, 48, 64, 2, 7, padded_text=False)])
    for mask, words in ((MASK[:2], 7), (None, 6)):
        with pytest.raises(ValueError, match="no prepared shape fits"):
            tight(text(2, words), mask, images())


def test_the_cheapest_shape_that_fits_is_run(eagerly):
    _, fast = pair()
    shapes = [InferenceShape(2, 48, 64, 3, words) for words in (30, 7, 12)]
    run = fast.compile_for_inference(shapes)
    ran = []
    for shape in shapes:
        run._runs[shape] = lambda shape=shape, **inputs: ran.append(shape.words) or run._graph(**inputs)
    for words in (3, 7, 8, 13):
        run(text(3, words), None, images(), image_index=INDEX)
    assert ran == [7, 7, 12, 30]


def test_each_seed_draws_its_own_places_and_the_eager_models(eagerly):
    overrides = {"norm": "frozen", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    _, fast = pair(torch.float64, **overrides)
    run = fast.compile_for_inference([InferenceShape(2, 48, 64, 3, 7, pixels=5)], sample=True)
    fast.train()
    inputs, more = (text(3), MASK, images(torch.float64)), {"image_index": INDEX}
    drawn = []
    for seed in (1, 2, torch.tensor(1)):
        found = run(*inputs, seed=seed, **more)
        same(found, fast(*inputs, seed=seed, **more), EXACT)
        drawn.append(found.positions)
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    unseeded = [run(*inputs, **more).positions for _ in range(2)]
    assert not torch.equal(*unseeded)
    keys = run(*inputs, seed=1, sample_keys=torch.tensor([7, 0, 1]), **more)
    assert torch.equal(
        keys.positions[1:], fast(*inputs, seed=1, sample_keys=torch.tensor([9, 0, 1]), **more).positions[1:]
    )


def test_weights_are_those_of_the_moment_it_was_compiled(eagerly):
    reference, fast = pair(torch.float64)
    fast.train()
    run = fast.compile_for_inference([SHAPE])
    inputs = (text(3), MASK, images(torch.float64))
    with torch.no_grad():
        for value in (*fast.parameters(), *fast.buffers()):
            value.zero_()
    same(run(*inputs, image_index=INDEX), reference(*inputs, image_index=INDEX), EXACT)
    assert fast.training


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_bfloat16_errs_at_most_twice_as_far_as_the_reference(eagerly, norm):
    inputs, more = (text(3), MASK), {"image_index": INDEX}
    exact, _ = pair(norm=norm)
    reference, fast = pair(torch.bfloat16, norm=norm)
    run = fast.compile_for_inference([SHAPE])
    with torch.no_grad():
        wanted = exact(*inputs, images(), **more).last_hidden_state
        errors = [
            float(
                (model(*inputs, images(torch.bfloat16), **more).last_hidden_state.float() - wanted)
                .square()
                .mean()
                .sqrt()
            )
            for model in (reference, run)
        ]
    # Values are of order 1, a rounding of them 2**-9; a few of those beside what is promised.
    assert errors[1] <= 2 * errors[0] + 4 * 2**-9
    assert errors[0] < 0.2  # or the bound above would say nothing


def test_nothing_to_read_and_nothing_read(eagerly):
    reference, fast = pair(torch.float64)
    run = fast.compile_for_inference([InferenceShape(2, 48, 64, 3, 7, pixels=3)], fallback=True)
    pixels, none = images(torch.float64), torch.zeros(0, dtype=torch.int64)
    for places in (None, PLACES[:0]):  # fits, and does not
        found = run(text(0), None, pixels, image_index=none, positions=places)
        expected = reference(text(0), None, pixels, image_index=none, positions=places)
        assert [found[name].shape for name in found] == [expected[name].shape for name in expected]
    unread = PLACES.clone()
    unread[2] = -1
    mask = MASK.clone()
    mask[2] = 0
    more = {"image_index": INDEX, "positions": unread}
    same(run(text(3), mask, pixels, **more), reference(text(3), mask, pixels, **more), EXACT)


def test_fallback_runs_what_was_not_prepared(eagerly):
    reference, fast = pair(torch.float64)
    run = fast.compile_for_inference([SHAPE], fallback=True)
    more = {"image_index": INDEX, "pixel_size": SIZES}
    for words in (7, 20):
        inputs = (text(3, words), None, images(torch.float64))
        same(run(*inputs, **more), reference(*inputs, **more), EXACT)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"input_ids": text(3, 8)}, ValueError, r"fits .*3 sequences of 8 words.*prepared: 2 images"),
        ({"pixel_values": images(size=(64, 64))}, ValueError, "no prepared shape fits 2 images of 64 x 64"),
        ({"pixel_size": SIZES}, ValueError, "with padding"),
        ({"positions": PLACES}, ValueError, "3 pixels"),
        ({"pixel_values": images(torch.bfloat16)}, TypeError, "pixel_values must be float32"),
        ({"pixel_values": images(torch.float64)}, TypeError, "pixel_values must be float32"),
        ({"pixel_values": None}, ValueError, "either pixel_values or pixel_embeddings"),
        ({"image_index": None}, ValueError, "image_index is needed"),
        ({"image_index": torch.tensor([0, 1, 2])}, IndexError, "image_index"),
        ({"input_ids": text(3) + 50}, IndexError, "input_ids must lie in 0 .. 49"),
        ({"input_ids": text(3).float()}, TypeError, "input_ids must be an integer tensor"),
        ({"positions": torch.full((3, 1), 12)}, ValueError, "outside its image"),
        ({"positions": torch.full((3, 1), -2)}, ValueError, "outside its image"),
        ({"output_attentions": True}, ValueError, "gives no attention maps"),
        ({"pixel_embeddings": ()}, ValueError, "reads no pixel_embeddings"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_refused_in_a_sentence(eagerly, change, error, message):
    run = pair()[1].compile_for_inference([SHAPE])
    inputs = {"input_ids": text(3), "pixel_values": images(), "image_index": INDEX}
    with pytest.raises(error, match=message) as raised:
        run(**(inputs | change))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"words": 65}, "words must be at most 64"),
        ({"images": 0}, "images must be an integer of at least 1"),
        ({"height": 48.0}, "height must be an integer"),
        ({"pixels": 0}, "pixels must be"),
        ({"width": 8}, "too small for one pixel"),
    ],
)
def test_a_shape_that_the_model_cannot_read_is_refused(shape, message):
    sizes = {"images": 1, "height": 48, "width": 64, "sequences": 1, "words": 7}
    fast = pair()[1]
    with pytest.raises(ValueError, match=message):
        fast.compile_for_inference([InferenceShape(**(sizes | shape))])
    with pytest.raises(ValueError, match="one InferenceShape at least"):
        fast.compile_for_inference([])


def test_without_a_compiler_it_runs_eagerly_and_says_so_once(monkeypatch, caplog):
    reference, fast = pair()
    monkeypatch.setattr(compilation, "can_compile", lambda device: "there is no working C++ compiler")
    compilation._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        runs = [fast.compile_for_inference([SHAPE]) for _ in range(2)]
    said = [record.message for record in caplog.records if "C++ compiler" in record.message]
    assert said == ["compile_for_inference runs without torch.compile: there is no working C++ compiler"]
    compilation._warn_once.cache_clear()
    inputs = (text(3), MASK, images())
    with torch.no_grad():
        same(runs[0](*inputs, image_index=INDEX), reference(*inputs, image_index=INDEX), DROP_IN)
