"""Evaluating grounding: of made-up attention whose figures are known beforehand, and of checkpoints."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pixelbert_fast import FastPixelBERT, PixelBertForPreTraining, cli
from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.processor import PixelBertImageProcessor, PixelBertProcessor
from pixelbert_fast.data.records import open_set
from pixelbert_fast.data.vocabulary import train_wordpiece
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks import checkpoint_evaluation
from pixelbert_fast.tasks.attending import AttentionMaps, word_spans
from pixelbert_fast.tasks.fine_tuned import EvaluationRequest
from pixelbert_fast.tasks.grounding import figures as figuring
from pixelbert_fast.tasks.grounding import measuring
from pixelbert_fast.tasks.grounding.captions import CaptionReader
from pixelbert_fast.tasks.grounding.measuring import MEASURES, Measured, ask, chosen_rows, measure
from pixelbert_fast.tasks.grounding.targets import OtherTargets
from tests.small_models import config

WORDS = {"noun", "object", "attribute", "colour", "size", "texture", "number", "relation", "place", "ground"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("grounding") / "scenes"
    build_set(make_builder("scenes", images=200, seed=2), directory, workers=1)
    return open_set(directory)


@pytest.fixture(scope="module")
def processor(built):
    texts = [text for own in built.split("train")["captions"] for text in own]
    images = PixelBertImageProcessor(short_side=64, long_side=96, least_side=9)
    return PixelBertProcessor(images, train_wordpiece(texts, 200), max_text_length=60)


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(4)
    return FastPixelBERT(config(vocab_size=len(processor.tokenizer))).eval()


@pytest.fixture(scope="module")
def checkpoint(model, processor, tmp_path_factory):
    """Of a pre-training, so that any checkpoint is seen to serve."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(4)
    PixelBertForPreTraining(model.config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def asked(built, processor, model):
    return ask(built.split("val"), CaptionReader(built), processor, model)


def test_every_caption_is_asked_about(built, asked, processor, model):
    assert (asked.images, asked.captions, asked.untrue, asked.unread) == (20, 100, 0, 0)
    assert {word.mention.kind for word in asked.words} == WORDS - {"attribute"}
    # 96 x 96 stored, 64 x 64 read at stride 8, pooled.
    assert {(word.grid.rows, word.grid.columns, word.grid.window) for word in asked.words} == {(4, 4, 16)}
    record = built.split("val")[0]
    word = next(one for one in asked.words if one.image == 0 and one.mention.kind == "noun")
    boxes = [json.loads(record["scene"])["objects"][number]["box"] for number in word.mention.objects]
    area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) / 96**2
    # Objects never touch nor leave the image; sums of 16 cells.
    assert word.target[2].mean() == pytest.approx(area, abs=1e-9)


def test_other_objects_are_those_not_named(asked):
    for word in asked.words:
        cells, _, _, other = word.target
        assert not (cells * other).any()
        if word.mention.kind == "ground":
            assert not other.any()
        else:
            # What is on no object is the ground, of the same image.
            ground = next(
                (one for one in asked.words if one.image == word.image and not one.mention.objects), None
            )
            assert ground is None or ((cells + other) == 1 - ground.target[0]).all()
    assert any(word.target[3].any() for word in asked.words)


def test_other_targets_are_those_of_the_slot_in_other_images(asked):
    others = OtherTargets(asked.words)
    for word in asked.words[::37]:
        beside = [
            one.target
            for one in asked.words
            if one.mention.slot == word.mention.slot and one.image != word.image
        ] or [
            one.target
            for one in asked.words
            if one.mention.kind == word.mention.kind and one.image != word.image
        ]
        # Sums of up to a few hundred shares, taken in another order.
        np.testing.assert_allclose(others.of(word), np.mean(beside, axis=0), atol=1e-12)
    alone = OtherTargets([asked.words[0]])
    assert alone.of(asked.words[0]) is None


def made_up(asked, monkeypatch):
    """Four heads: of the target, even, always at cell 0, of nothing at all. Rollout is of the target."""
    targets = {(word.caption, word.mention.start): word.target for word in asked.words}

    def attention(model, image, texts, *, processor, rollout):
        found = []
        for text in texts:
            spans = word_spans(text)
            maps = np.zeros((2, 2, len(spans), 4, 4), dtype=np.float32)
            for place, (start, _) in enumerate(spans):
                if (text, start) in targets:
                    maps[0, 0, place] = targets[text, start][0].reshape(4, 4)
            maps[0, 1], maps[1, 0, :, 0, 0] = 1 / 32, 0.5
            words = [text[a:b] for a, b in spans]
            rolled = maps[0, 0] if rollout else None
            found.append(AttentionMaps(text, words, spans, maps, rolled, (4, 4), (64, 64), 16))
        return found

    monkeypatch.setattr(measuring, "attention_maps_of_texts", attention)
    settings = SimpleNamespace(num_hidden_layers=2, num_attention_heads=2)
    return SimpleNamespace(base_model=SimpleNamespace(config=settings))


def test_figures_of_made_up_attention(built, asked, processor, monkeypatch):
    # A caption of two images would have two targets; of these scenes few captions are.
    seen = {}
    for word in asked.words:
        seen.setdefault(word.caption, set()).add(word.image)
    asked.words = [word for word in asked.words if len(seen[word.caption]) == 1]
    fake = made_up(asked, monkeypatch)
    done = []
    measured = measure(fake, built.split("val"), asked, processor, done=lambda: done.append(1))
    assert len(done) == 20
    assert measured.maps == [(0, 0), (0, 1), (0, None), (1, 0), (1, 1), (1, None), ("rollout", None)]
    found = figuring.figures(measured, figuring.weights(20))
    assert found.keys() == WORDS
    for kind, own in found.items():
        chance = own["chance"]
        right, even, mean, corner, nothing = own["maps"][:5]
        assert right["pointing"] == right["near"] == [1, 1, 1]
        assert right["other"] == [0, 0, 0]
        assert own["maps"][6] == {**right, "layer": "rollout", "head": None}
        assert 0 < right["above_permuted"][1] <= right["above_permuted"][0] < 1
        assert (right["layer"], right["head"]) == (1, 1)
        assert (mean["layer"], mean["head"], mean["pointing"]) == (1, "mean", [1, 1, 1])
        for other in (even, nothing):
            # Means of the same numbers in another order.
            assert other["pointing"][0] == pytest.approx(chance["pointing"], abs=1e-9)
            assert other["near"][0] == pytest.approx(chance["near"], abs=1e-9)
            assert other["mass"][0] == pytest.approx(chance["mass"], abs=1e-9)
            assert other["other"][0] == pytest.approx(chance["other"], abs=1e-9)
        assert even["to_pixels"] == pytest.approx([0.5] * 3)
        assert nothing["to_pixels"] == [0, 0, 0]
        words = [word for word in asked.words if kind in measuring._kinds(word.mention.kind)]
        assert own["words"] == len(words)
        assert corner["pointing"][0] == pytest.approx(np.mean([word.target[0, 0] for word in words]))
        assert figuring.best(own["maps"], heads=True) == (1, 1)
        assert figuring.best(own["maps"], heads=False) == (1, "mean")
        assert chance["mass"] < chance["near"]
    # Where an image has one word of a slot at most, the mean over all other images is the mean over all: what
    # a fixed map hits is all due to where things usually lie.
    relation = found["relation"]["maps"][3]
    assert relation["pointing"][0] == pytest.approx(relation["permuted_pointing"][0], abs=1e-9)
    counts = [found[kind]["words"] for kind in ("colour", "size", "texture")]
    assert found["attribute"]["words"] == sum(counts)


def test_words_that_the_model_did_not_read_are_counted(built, asked, processor, model):
    short = PixelBertProcessor(processor.image_processor, processor.tokenizer, max_text_length=8)
    few = measuring.Asked([word for word in asked.words if word.image < 4], 20)
    whole, cut = (measure(model, built.split("val"), few, each, rollout=False) for each in (processor, short))
    assert whole.cut == 0 < cut.cut
    assert cut.counts["noun"].sum() < whole.counts["noun"].sum()
    assert ("rollout", None) not in whole.maps


def test_intervals_are_of_images():
    """Of 400 images with one word each that hits with probability 0.3; and of ten such words an image."""
    rng = np.random.default_rng(0)
    hits = (rng.random(400) < 0.3).astype(float)

    def figure(counts, times):
        sums = np.zeros((len(counts), len(MEASURES), 1))
        sums[:, 0, 0] = times
        measured = Measured(
            [(0, None)], {"noun": counts}, {"noun": sums}, {"noun": np.zeros((len(counts), 4))}
        )
        return figuring.figures(measured, figuring.weights(len(counts)))["noun"]["maps"][0]["pointing"]

    mean, low, high = figure(np.ones(400, dtype=int), hits)
    assert mean == hits.mean()
    deviation = np.sqrt(mean * (1 - mean) / 400)
    # 1,000 resamples know a 2.5 % quantile to about a tenth of the deviation; three times that.
    assert low == pytest.approx(mean - 1.96 * deviation, abs=0.3 * deviation)
    assert high == pytest.approx(mean + 1.96 * deviation, abs=0.3 * deviation)
    # Ten equal words an image make the interval no narrower.
    assert figure(np.full(400, 10), 10 * hits) == pytest.approx([mean, low, high])


def test_chosen_rows_are_spread():
    assert list(chosen_rows(5, None)) == list(chosen_rows(5, 9)) == [0, 1, 2, 3, 4]
    assert list(chosen_rows(101, 3)) == [0, 50, 100]


def evaluate(checkpoint, built, split, **request):
    return checkpoint_evaluation("grounding")(checkpoint, built, split, EvaluationRequest(**request))


def test_a_checkpoint_on_the_command_line(checkpoint, built, tmp_path, capsys):
    out = tmp_path / "grounding.json"
    line = ["evaluate", "grounding", "--checkpoint", str(checkpoint), "--data", str(built.directory)]
    assert cli.main([*line, "--split", "test", "--images", "6", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "furthest above permuted on the images of val" in shown
    metrics = json.loads(out.read_text())["metrics"]
    assert (metrics["images"], metrics["captions"], metrics["chosen_on"]) == (6, 30, "val")
    assert not any(metrics["left_out"].values())
    maps = metrics["kinds"]["noun"]["maps"]
    assert len(maps) == metrics["layers"] * (metrics["heads"] + 1) + 1
    assert all(f"  {kind} " in shown for kind in metrics["kinds"])
    for one in maps:
        for name in (*MEASURES, "above_permuted", "above_untrained"):
            mean, low, high = one[name]
            assert low <= mean + 1e-9 and mean <= high + 1e-9
    # What was chosen is there with its figures on both splits.
    head = metrics["chosen"]["noun"]["head"]
    assert head["here"] in maps
    assert head["where_chosen"] != head["here"]
    assert all(head["here"][name] == head["where_chosen"][name] for name in ("layer", "head"))


def test_nothing_is_above_an_untrained_model_of_the_same_weights(checkpoint, built, monkeypatch):
    """The "untrained" one made to be the checkpoint itself: what is above it is exactly nothing."""
    from pixelbert_fast.tasks.grounding import checkpoint as evaluating

    model, _ = evaluating.load_any(checkpoint)
    monkeypatch.setattr(evaluating, "_untrained", lambda config, seed, device: model)
    done = []
    request = {"images": 5, "options": {"seeds": "2", "choose": "test"}}
    metrics = evaluate(checkpoint, built, "test", progress=lambda *now: done.append(now), **request).metrics
    assert metrics["untrained_models"] == 2
    for own in metrics["kinds"].values():
        for one, other in zip(own["maps"], own["untrained"], strict=True):
            # Means of the same numbers, once taken twice.
            assert one["above_untrained"] == pytest.approx([0, 0, 0], abs=1e-12)
            assert other["pointing_by_seed"] == pytest.approx([one["pointing"][0]] * 2)
    # Its own images choose: one split, and two untrained models.
    assert done[-1] == (15, 15)
    chosen = metrics["chosen"]["noun"]["head"]
    assert chosen["here"] == chosen["where_chosen"]


def test_untrained_models_are_those_of_their_seeds(model):
    from pixelbert_fast.tasks.grounding.checkpoint import _untrained

    one, same, other = (_untrained(model.config, seed, "cpu") for seed in (0, 0, 1))
    name = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(one.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])
    assert not one.training


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"options": {"head": "1"}}, "grounding has no option 'head'; there are choose, rollout, seeds"),
        ({"options": {"rollout": "maybe"}}, "the option rollout must be true or false, not 'maybe'"),
        ({"options": {"seeds": "0"}}, "the option seeds must be a whole number of at least 1, not '0'"),
        ({"options": {"choose": "dev"}}, "has no split 'dev', it has: train, val, test"),
        ({"predictions": "x"}, "grounding predicts nothing"),
        ({"decoder": "dali"}, "grounding reads its images one by one, not with dali"),
    ],
)
def test_what_is_refused(checkpoint, built, request_, said):
    with pytest.raises(UserError, match=said):
        evaluate(checkpoint, built, "test", images=3, **request_)


def test_blank_images_say_nothing(checkpoint, built):
    """The same map for the same words, whatever the image would show."""
    found = evaluate(checkpoint, built, "val", images=12, text_only=True).metrics["kinds"]["relation"]["maps"]
    layer = found[0]
    # Words of one slot are seldom the same, but none knows its image; 12 images leave wide intervals.
    assert layer["above_permuted"][1] <= 0 <= layer["above_permuted"][2]


def test_ctrl_c_is_one_sentence(checkpoint, built, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "attention_maps_of_texts", stopped)
    line = ["evaluate", "grounding", "--checkpoint", str(checkpoint), "--data", str(built.directory)]
    assert cli.main([*line, "--images", "3"]) == 130
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("pixelbert: stopped; nothing was written; run the same command again")


def test_why_nothing_could_be_scored_is_told(built, asked, processor, model, monkeypatch):
    """Of every image the same is wrong, and it is not the image."""
    few = measuring.Asked([word for word in asked.words if word.image < 2], 20)

    def slow(*_, **__):
        raise UserError("the tokenizer is slow")

    with monkeypatch.context() as patched:
        patched.setattr(measuring, "attention_maps_of_texts", slow)
        with pytest.raises(UserError, match=r"could be scored: the tokenizer is slow$"):
            measure(model, built.split("val"), few, processor)
    alone = measuring.Asked([word for word in asked.words if word.image < 1], 20)
    with pytest.raises(UserError, match="they name nothing that words of other images name"):
        measure(model, built.split("val"), alone, processor)


def test_attention_that_is_not_finite_is_no_figure(built, asked, processor, model):
    broken = FastPixelBERT(model.config).eval()
    torch.nn.init.constant_(broken.encoder.layer[0].attention.self.query.weight, torch.nan)
    few = measuring.Asked([word for word in asked.words if word.image < 3], 20)
    with pytest.raises(UserError, match="attention is not finite on an image with the caption"):
        measure(broken, built.split("val"), few, processor, rollout=False)
