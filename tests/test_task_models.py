"""The models of the downstream tasks: the reference's outputs and gradients, all pixels, what is refused."""

import pytest
import torch
import torch.nn.functional as F

from pixelbert_fast import AttentionRequest, FastPixelBERT, PixelBERT, PixelBertConfig
from pixelbert_fast.model import answer_labels
from tests.small_models import INDEX, MASK, SIZES, assert_same_gradients, gradients, images, text
from tests.task_models import (
    ANSWERS,
    GROUPS,
    NLVR2,
    OUTPUT,
    PAIRS,
    RETRIEVAL,
    SCORES,
    TARGET,
    TRUTH,
    VQA,
    inputs_of,
    pair_of,
    settings,
)

KINDS = [VQA, NLVR2, RETRIEVAL]
# Float32 sums in another order, as the drop-in promises of the models they stand on.
DROP_IN = {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_fast_and_reference_agree(kind, training):
    results = []
    for model in pair_of(kind):
        model.train(training)
        out = model(**inputs_of(kind))
        out.loss.backward()
        results.append((out, gradients(model)))
    (expected, wanted), (found, got) = results
    assert type(found).__name__ == f"{kind.__name__}Output"
    torch.testing.assert_close(found.loss, expected.loss, **DROP_IN)
    torch.testing.assert_close(found[OUTPUT[kind]], expected[OUTPUT[kind]], **DROP_IN)
    # Batch statistics of two small images amplify rounding; see test_fast_pixelbert.py.
    assert_same_gradients(got, wanted, 2e-3)
    assert len(got) == len(list(model.parameters()))  # DDP: no parameter goes unused


@pytest.mark.parametrize("kind", KINDS)
def test_places_and_attention_maps_reach_the_model(kind):
    given = inputs_of(kind, places=True, target=False)
    outputs = [model.eval()(**given, output_attentions=True) for model in pair_of(kind)]
    sequences = 6 if kind is NLVR2 else 3
    for out in outputs:
        assert out.loss is None
        assert [one.shape for one in out.attentions] == [(sequences, 4, 10, 10)] * 3
    torch.testing.assert_close(outputs[0][OUTPUT[kind]], outputs[1][OUTPUT[kind]], **DROP_IN)
    chosen = AttentionRequest(layers=(0,), queries=torch.zeros(sequences, 1, dtype=torch.int64))
    asked = pair_of(kind)[1].eval()(**given, output_attentions=chosen)
    torch.testing.assert_close(asked.attentions[0][:, :, 0], outputs[0].attentions[0][:, :, 0], **DROP_IN)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "reference"])
def test_training_reads_every_pixel_unless_it_is_told_to_sample(kind, fast):
    """More pixels than `sampled_pixels`: a draw would differ from seed to seed."""
    given = inputs_of(kind)
    frozen = {"norm": "frozen", "sampled_pixels": 2}
    model = pair_of(kind, **frozen)[fast]
    whole = model.eval()(**given).loss
    torch.testing.assert_close(model.train()(**given, seed=1).loss, whole)
    sampling = pair_of(kind, **frozen, sampled_fine_tuning=True)[fast]
    torch.testing.assert_close(sampling.eval()(**given).loss, whole)
    losses = [sampling.train()(**given, seed=seed).loss for seed in range(4)]
    assert len({round(float(loss.detach()), 5) for loss in losses}) > 1


def test_the_switch_is_a_field_of_the_configuration(tmp_path):
    settings(sampled_fine_tuning=True).save_pretrained(tmp_path)
    assert PixelBertConfig.from_pretrained(tmp_path).sampled_fine_tuning is True
    assert PixelBertConfig().sampled_fine_tuning is False
    with pytest.raises(ValueError, match="sampled_fine_tuning must be True or False, got 1"):
        PixelBertConfig(sampled_fine_tuning=1)
    assert PixelBERT(settings()).samples and FastPixelBERT(settings()).samples


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layer_of_the_fast_model_computes_cls_only(kind):
    _, model = pair_of(kind)
    rows = []
    last = model.pixelbert.encoder.layer[-1].intermediate.dense
    last.register_forward_hook(lambda module, given, output: rows.append(output.shape[0]))
    model.eval()(**inputs_of(kind))
    assert rows == [6 if kind is NLVR2 else 3]


@pytest.mark.parametrize("kind", KINDS)
def test_pixel_embeddings_stand_for_the_images(kind):
    _, model = pair_of(kind)
    given = inputs_of(kind)
    expected = model.eval()(**given)
    stored = model.pixelbert.embed_pixels(given.pop("pixel_values"), given.pop("pixel_size"))
    found = model(**given, pixel_embeddings=stored)
    torch.testing.assert_close(found[OUTPUT[kind]], expected[OUTPUT[kind]], **DROP_IN)


@pytest.mark.parametrize("kind", KINDS)
def test_activation_checkpoints_change_no_gradient(kind):
    """No dropout and frozen norms: what is computed again is the same, but for rounding."""
    plain, checkpointed = (pair_of(kind, norm="frozen")[1].train() for _ in range(2))
    checkpointed.gradient_checkpointing_enable()
    for model in (plain, checkpointed):
        model(**inputs_of(kind)).loss.backward()
    assert_same_gradients(gradients(checkpointed), gradients(plain), 1e-4)


def test_the_loss_of_answers_is_that_of_the_field():
    _, model = pair_of(VQA)
    out = model.eval()(**inputs_of(VQA))
    # LXMERT and ViLT: the mean over all logits, times the number of answers.
    mean = F.binary_cross_entropy_with_logits(out.logits, SCORES)
    torch.testing.assert_close(out.loss, mean * len(ANSWERS))


def test_questions_without_answers_do_not_count():
    _, model = pair_of(VQA)
    given = inputs_of(VQA, target=False)
    labels = SCORES.clone()
    labels[1] = torch.nan
    out = model.eval()(**given, labels=labels)
    known = [0, 2]
    mean = F.binary_cross_entropy_with_logits(out.logits[known], SCORES[known])
    torch.testing.assert_close(out.loss, mean * len(ANSWERS))
    nothing = model(**given, labels=torch.full_like(SCORES, torch.nan)).loss
    assert nothing == 0
    nothing.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_summed_in_float32(kind, dtype):
    _, model = pair_of(kind, norm="frozen")
    given = inputs_of(kind)
    half = {name: value.to(dtype) if name == "pixel_values" else value for name, value in given.items()}
    if kind is VQA:
        half["labels"] = half["labels"].to(dtype)
    exact = model.eval()(**given).loss
    out = model.to(dtype)(**half)
    assert out[OUTPUT[kind]].dtype == dtype and out.loss.dtype == torch.float32
    torch.testing.assert_close(out.loss, exact, rtol=0.05, atol=0.05)  # a dozen layers rounded to 8 bits


def test_a_statement_is_judged_by_both_its_images_in_order():
    reference, model = pair_of(NLVR2)
    given = inputs_of(NLVR2)
    out = model.eval()(**given)
    torch.testing.assert_close(out.loss, F.cross_entropy(out.logits, TRUTH))
    pooled = [
        reference.pixelbert.eval()(text(3), MASK, images(), pixel_size=SIZES, image_index=PAIRS[:, side])
        for side in (0, 1)
    ]
    both = torch.cat([one.pooler_output for one in pooled], dim=1)
    torch.testing.assert_close(out.logits, reference.pair_head(both), **DROP_IN)
    swapped = model(**(given | {"image_index": PAIRS.flip(1)})).logits
    assert float((swapped - out.logits).detach().abs().max()) > 1e-3


def test_images_of_statements_follow_each_other_where_nothing_is_said():
    _, model = pair_of(NLVR2)
    four = torch.cat([images(), images().flip(0)])
    found = model.eval()(text(2), None, four).logits
    told = model(text(2), None, images(), image_index=torch.tensor([[0, 1], [1, 0]])).logits
    torch.testing.assert_close(found, told, **DROP_IN)


def test_an_image_of_several_statements_passes_the_backbone_once():
    _, model = pair_of(NLVR2)
    seen = []
    model.pixelbert.backbone.conv1.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[0]))
    model.eval()(**inputs_of(NLVR2))
    assert seen == [2]


def test_labels_of_statements_may_be_booleans_or_unknown():
    _, model = pair_of(NLVR2)
    given = inputs_of(NLVR2, target=False)
    expected = model.eval()(**given, labels=TRUTH)
    torch.testing.assert_close(model(**given, labels=TRUTH.bool()).loss, expected.loss)
    some = model(**given, labels=torch.tensor([1, -100, -100])).loss
    torch.testing.assert_close(some, F.cross_entropy(expected.logits[:1], TRUTH[:1]))
    assert model(**given, labels=torch.full((3,), -100)).loss == 0


def test_the_loss_of_groups_is_a_softmax_over_each():
    _, model = pair_of(RETRIEVAL)
    out = model.eval()(**inputs_of(RETRIEVAL))
    assert out.scores.shape == (3,)
    a, b, c = out.scores
    expected = torch.stack(
        [torch.stack([a, c, b]).softmax(0)[0].log(), torch.stack([b, a]).softmax(0)[0].log()]
    )
    torch.testing.assert_close(out.loss, -expected.mean())
    none = model(**inputs_of(RETRIEVAL, target=False), groups=torch.zeros(0, 3, dtype=torch.int32))
    assert none.loss == 0


@pytest.mark.parametrize(
    ("kind", "change", "error", "message"),
    [
        (VQA, {"labels": SCORES[:2]}, ValueError, r"labels must be floating-point \[3, 5\]"),
        (VQA, {"labels": SCORES.long()}, ValueError, "soft score of each answer to each question, got int64"),
        (NLVR2, {"labels": SCORES}, TypeError, r"labels must be an integer tensor \[3\]"),
        (NLVR2, {"image_index": INDEX}, ValueError, r"image_index must be \[3, 2\]"),
        (NLVR2, {"positions": PAIRS}, ValueError, r"positions must be \[3, 2, K\]"),
        (NLVR2, {"sample_keys": INDEX}, ValueError, r"sample_keys must be \[3, 2\]"),
        (
            RETRIEVAL,
            {"groups": GROUPS + 2},
            IndexError,
            r"groups must lie in -1 .. 2 \(there are 3 sequences",
        ),
        (RETRIEVAL, {"groups": GROUPS.flip(1)}, IndexError, r"groups\[:, 0\] must lie in 0 .. 2"),
        (RETRIEVAL, {"groups": GROUPS[:, :0]}, ValueError, r"with the right pair first, got C = 0"),
        (RETRIEVAL, {"groups": GROUPS[0]}, ValueError, r"groups must be \[G, C\]"),
        (RETRIEVAL, {"pixel_values": None}, ValueError, "needs either pixel_values or pixel_embeddings"),
    ],
)
def test_wrong_targets_are_refused(kind, change, error, message):
    _, model = pair_of(kind)
    with pytest.raises(error, match=message):
        model.eval()(**(inputs_of(kind) | change))


def test_answers_are_numbered_in_order():
    labels = answer_labels(ANSWERS)
    assert labels["id2label"] == dict(enumerate(ANSWERS)) and labels["label2id"]["red"] == 3
    assert PixelBertConfig(**labels).num_labels == 5
    for wrong in ([], ["yes", "yes"]):
        with pytest.raises(ValueError, match="answers must be at least one, all different"):
            answer_labels(wrong)
    assert set(TARGET) == set(KINDS)
