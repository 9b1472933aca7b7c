"""FastPixelBERT against PixelBERT with the same weights: outputs, gradients, checkpoints, training."""

import pytest
import torch
from torch.profiler import profile

from pixelbert_fast import FastPixelBERT, PixelBERT, PixelBertForPreTraining
from pixelbert_fast.model import fast_backbone, fast_encoder
from pixelbert_fast.ops import backends
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
    run,
    stir,
    text,
)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("shared", [False, True], ids=["own-image", "shared-and-padded-text"])
@pytest.mark.parametrize("sizes", [None, SIZES], ids=["one-size", "sizes-differ"])
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_outputs_and_gradients_are_the_references(norm, sizes, shared, train):
    more = {"pixel_size": sizes, "seed": 3}
    rows = 3 if shared else 2
    if shared:
        more |= {"image_index": INDEX, "attention_mask": MASK}
    reference, fast = pair(config(norm=norm), torch.float64)
    reference.train(train), fast.train(train)
    expected, wanted = run(reference, text(rows), pixel_values=images(torch.float64), **more)
    found, got = run(fast, text(rows), pixel_values=images(torch.float64), **more)
    assert torch.equal(found.positions, expected.positions)
    assert torch.equal(found.pixel_mask, expected.pixel_mask)
    for name in ("last_hidden_state", "pooler_output"):
        # Some thousand float64 roundings of values of order 1.
        torch.testing.assert_close(found[name], expected[name], rtol=1e-11, atol=1e-11)
    # A gradient sums some thousand terms more, and batch norm divides by the deviation of a few places.
    assert_same_gradients(got, wanted, 1e-8)
    for (name, value), (_, other) in zip(reference.named_buffers(), fast.named_buffers(), strict=True):
        torch.testing.assert_close(other, value, rtol=1e-11, atol=1e-11, msg=name)


@pytest.mark.parametrize("order", ["project_pool", "pool_project"])
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_float32_outputs_are_within_what_a_drop_in_promises(norm, order):
    reference, fast = pair(config(norm=norm, projection_order=order))
    reference.eval(), fast.eval()
    more = {"image_index": INDEX, "attention_mask": MASK, "pixel_size": SIZES}
    expected, found = (m(text(3), pixel_values=images(), **more) for m in (reference, fast))
    for name in ("last_hidden_state", "pooler_output"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


def test_given_places_with_holes_in_them():
    reference, fast = pair(config(), torch.float64)
    more = {"image_index": INDEX, "positions": PLACES, "attention_mask": MASK}
    (expected, wanted), (found, got) = (
        run(m, text(3), pixel_values=images(torch.float64), **more) for m in (reference, fast)
    )
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, rtol=1e-11, atol=1e-11)
    assert (found.last_hidden_state[0, -1] == 0).all()
    assert_same_gradients(got, wanted, 1e-8)


@pytest.mark.parametrize("positions", [None, PLACES])
def test_pixel_embeddings_in_place_of_images(positions):
    reference, fast = pair(config(norm="frozen"), torch.float64)
    reference.eval(), fast.eval()
    results = []
    for model in (reference, fast):
        tokens = model.embed_pixels(images(torch.float64))
        more = {"pixel_embeddings": tokens, "positions": positions, "image_index": INDEX}
        results.append(run(model, text(3), MASK, **more))
    (expected, wanted), (found, got) = results
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, rtol=1e-11, atol=1e-11)
    assert_same_gradients(got, wanted, 1e-8)


def test_attention_maps_are_the_references_where_the_query_is_no_padding():
    reference, fast = pair(config(norm="frozen"), torch.float64)
    reference.eval(), fast.eval()
    more = {"image_index": INDEX, "positions": PLACES, "output_attentions": True}
    expected, found = (m(text(3), MASK, images(torch.float64), **more) for m in (reference, fast))
    read = torch.cat([MASK != 0, PLACES >= 0], dim=1)[:, None, :, None]
    assert len(found.attentions) == len(expected.attentions) == fast.config.num_hidden_layers
    for one, other in zip(found.attentions, expected.attentions, strict=True):
        torch.testing.assert_close(one * read, other * read, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_checkpointing_computes_twice_and_changes_no_gradient(norm, dropout, reentrant, monkeypatch):
    calls = []
    for module, name in ((fast_encoder, "compute_layer"), (fast_backbone, "run_block")):
        original = getattr(module, name)

        def counted(*arguments, name=name, original=original):
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(module, name, counted)
    settings = config(norm=norm, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    results = []
    for checkpoints in (False, True):
        model = pair(settings, torch.float64)[1].train()
        if checkpoints:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        calls.clear()
        torch.manual_seed(4)
        out, got = run(model, text(3), MASK, images(torch.float64), image_index=INDEX, seed=3)
        assert calls.count("compute_layer") == 3 * (1 + checkpoints)
        assert calls.count("run_block") == 4 * (1 + checkpoints)
        results.append((out.last_hidden_state, got, dict(model.named_buffers())))
    (hidden, wanted, buffers), (other_hidden, got, other_buffers) = results
    assert torch.equal(other_hidden, hidden)
    # The same operations in the same order, but for how a sum of gradients is taken.
    assert_same_gradients(got, wanted, 1e-12)
    assert all(torch.equal(other_buffers[name], value) for name, value in buffers.items())


def test_checkpoints_move_both_ways(tmp_path):
    reference, fast = pair(config())
    assert list(fast.state_dict()) == list(reference.state_dict())
    reference.save_pretrained(tmp_path / "reference")
    fast.save_pretrained(tmp_path / "fast")
    for origin, kind in (("reference", FastPixelBERT), ("fast", PixelBERT)):
        loaded = kind.from_pretrained(tmp_path / origin).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in reference.state_dict().items())


def lies_in_channels_last(model):
    wide = [p for p in model.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert wide
    return all(p.is_contiguous(memory_format=torch.channels_last) for p in wide)


def test_loading_keeps_the_layout_of_the_weights(tmp_path):
    reference, _ = pretraining_pair(torch.float32)
    reference.save_pretrained(tmp_path)
    assert lies_in_channels_last(FastPixelBERT.from_pretrained(tmp_path))
    task, information = PixelBertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert lies_in_channels_last(task) and not information["missing_keys"]
    assert not lies_in_channels_last(PixelBERT.from_pretrained(tmp_path))


def pretraining_pair(dtype=torch.float64, **settings):
    settings = config(**settings)
    torch.manual_seed(0)
    reference = PixelBertForPreTraining(settings, fast=False)
    stir(reference)
    fast = PixelBertForPreTraining(settings, fast=True)
    fast.load_state_dict(reference.state_dict())
    assert list(fast.state_dict()) == list(reference.state_dict())
    assert (type(reference.pixelbert), type(fast.pixelbert)) == (PixelBERT, FastPixelBERT)
    return reference.to(dtype), fast.to(dtype)


LABELS = torch.tensor([[-100, 7, -100, 9, -100, -100, -100]] * 2 + [[-100, -100, 8, 8, -100, -100, -100]])
MATCHED = torch.tensor([1, 0, 1])
NO_WORD = torch.full_like(LABELS, -100)
NOTHING_READ = MASK * torch.tensor([[1], [1], [0]])
STEPS = {
    "both": (MASK, {"labels": LABELS, "matched": MATCHED}, {}),
    "labels-on-mismatched": (MASK, {"labels": LABELS, "matched": MATCHED}, {"mlm_on_mismatched": True}),
    "labels-only": (MASK, {"labels": LABELS}, {}),
    "label-of-cls": (None, {"labels": LABELS.roll(-1, 1), "matched": MATCHED}, {}),
    "match-only": (MASK, {"matched": MATCHED}, {}),
    "no-target": (MASK, {}, {}),
    "no-labelled-word": (MASK, {"labels": NO_WORD, "matched": MATCHED}, {}),
    "a-text-of-padding": (NOTHING_READ, {"labels": LABELS, "matched": MATCHED}, {}),
    "maps-too": (MASK, {"labels": LABELS, "matched": MATCHED, "output_attentions": True}, {}),
}


@pytest.mark.parametrize(("mask", "targets", "settings"), STEPS.values(), ids=STEPS.keys())
def test_pretraining_losses_logits_and_gradients(mask, targets, settings):
    results = []
    for model in pretraining_pair(norm="frozen", **settings):
        out = model(text(3), mask, images(torch.float64), image_index=INDEX, seed=3, **targets)
        loss = projected(out.mlm_logits, out.itm_logits) if out.loss is None else out.loss
        loss.backward()
        results.append((out, gradients(model)))
    (expected, wanted), (found, got) = results
    assert found.keys() == expected.keys()
    for name in ("loss", "mlm_loss", "itm_loss", "mlm_logits", "itm_logits"):
        if expected.get(name) is not None:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-11, atol=1e-11, msg=name)
    assert_same_gradients(got, wanted, 1e-8)


def test_labels_at_padding_are_ignored():
    for model in pretraining_pair():
        model.eval()
        padded = torch.where(MASK == 0, 11, LABELS)
        inputs = (text(3), MASK, images(torch.float64))
        with_padding, without = (
            model(*inputs, labels=given, image_index=INDEX) for given in (padded, LABELS.clone())
        )
        assert torch.equal(with_padding.mlm_logits, without.mlm_logits)
        assert torch.equal(with_padding.loss, without.loss)


def test_from_pretrained_takes_fast(tmp_path):
    reference, _ = pretraining_pair(torch.float32)
    reference.save_pretrained(tmp_path)
    for fast, kind in ((False, PixelBERT), (True, FastPixelBERT)):
        loaded = PixelBertForPreTraining.from_pretrained(tmp_path, fast=fast)
        assert type(loaded.pixelbert) is kind
        assert loaded.mlm_head.decoder.weight is loaded.pixelbert.embeddings.word_embeddings.weight
        state = loaded.state_dict()
        assert all(torch.equal(state[name], value) for name, value in reference.state_dict().items())


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_fifty_steps_follow_the_same_curve(norm):
    curves = []
    for model in pretraining_pair(norm=norm):
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        curve = []
        for step in range(50):
            optimizer.zero_grad()
            targets = {"labels": LABELS, "matched": MATCHED.roll(step % 2)}
            loss = model(text(3), MASK, images(torch.float64), image_index=INDEX, seed=step, **targets).loss
            loss.backward()
            optimizer.step()
            curve.append(float(loss.detach()))
        curves.append(torch.tensor(curve, dtype=torch.float64))
    expected, found = curves
    assert expected[-10:].mean() < expected[:10].mean()
    # In float64 a step differs by 1e-13 or so; a wrong term of 1e-6 would stand far above what 50 steps
    # amplify that to, where float32's own rounding would hide it.
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_bfloat16_errs_at_most_twice_as_far_as_the_reference(norm):
    inputs = {"attention_mask": MASK, "image_index": INDEX, "positions": PLACES}
    exact = pair(config(norm=norm))[0].eval()(text(3), pixel_values=images(), **inputs)
    halves = pair(config(norm=norm), torch.bfloat16)
    errors = []
    for model in halves:
        out = model.eval()(text(3), pixel_values=images(torch.bfloat16), **inputs)
        assert out.last_hidden_state.dtype == torch.bfloat16
        error = (out.last_hidden_state.float() - exact.last_hidden_state).square().mean().sqrt()
        errors.append(float(error.detach()))
    # Values are of order 1, a rounding of them 2**-9; a few of those beside what is promised.
    assert errors[1] <= 2 * errors[0] + 4 * 2**-9
    assert errors[0] < 0.2  # or the bound above would say nothing


@pytest.mark.parametrize("train", [False, True])
def test_no_sequence_at_all(train):
    reference, fast = pair(config(norm="frozen"))
    nothing = torch.zeros(0, dtype=torch.int64)
    more = {"image_index": nothing, "seed": 0}
    expected, found = (m.train(train)(text(0), None, images(), **more) for m in (reference, fast))
    for name in ("last_hidden_state", "pooler_output", "positions"):
        assert found[name].shape == expected[name].shape
    projected(found.last_hidden_state, found.pooler_output).backward()
    model = PixelBertForPreTraining(config(norm="frozen")).train(train)
    assert model(text(0), None, images(), labels=text(0), **more).mlm_logits.shape == (0, 50)


def test_a_sequence_of_which_nothing_is_read():
    """Neither word nor pixel: zeros out, and gradients that are numbers."""
    for model in pair(config(norm="frozen")):
        places = PLACES.clone()
        places[2] = -1
        more = {"positions": places, "image_index": INDEX}
        out, got = run(model, text(3), NOTHING_READ, images(), **more)
        assert (out.last_hidden_state[2] == 0).all()
        assert all(value.isfinite().all() for value in got.values())


def test_ops_run_on_the_backend_that_is_chosen_by_itself():
    reference, fast = pair(config(projection_order="pool_project"))
    for model, wish in ((reference, "reference"), (fast, None)):
        with backends.watch() as ran:
            run(model.train(), text(2), None, images(), seed=0)
        assert {op for op, _ in ran} >= {"sample_positions", "pixel_embed"}
        for op, name in ran:
            assert name == backends.choose(op, wish, "cpu", torch.float32)


@pytest.mark.parametrize(
    "sizes", [None, torch.tensor([[64, 96], [40, 70]])], ids=["one-size", "sizes-differ"]
)
@pytest.mark.parametrize("from_channels_last", [False, True])
def test_the_only_layout_copy_is_the_inputs(from_channels_last, sizes):
    # At an output stride of 32: at 8 torch runs two 1x1 convolutions by another way, which copies a bias.
    model = FastPixelBERT(config(norm="frozen", output_stride=32)).eval()
    pixels = torch.randn(2, 3, 64, 96)
    if from_channels_last:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), profile(record_shapes=True) as profiled:
        features = model.run_backbone(pixels, sizes)
    copies = [
        event.input_shapes[0]
        for event in profiled.events()
        if event.name in ("aten::clone", "aten::copy_") and len(event.input_shapes[0]) == 4
    ]
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert any(event.name == "aten::conv2d" for event in profiled.events())
    # One change of layout is a clone, and the copy_ within it.
    assert copies == ([] if from_channels_last else [[2, 3, 64, 96]] * 2)
