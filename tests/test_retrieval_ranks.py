"""Recall at k from a matrix of scores: against a count by hand, ties, several texts an image, folds."""

from __future__ import annotations

import numpy as np
import pytest

from pixelbert_fast.tasks.retrieval.ranks import fold_figures, ranks


def made(texts=60, images=20, levels=None, seed=0):
    """Scores, with many ties where there are few levels, and texts in no order with uneven owners."""
    rng = np.random.default_rng(seed)
    shape = (texts, images)
    scores = rng.normal(size=shape) if levels is None else rng.integers(0, levels, shape).astype(float)
    owner = np.concatenate([np.arange(images), rng.integers(0, images, texts - images)])
    rng.shuffle(owner)
    scores[np.arange(texts), owner] += 1
    return scores.astype(np.float32), owner


def counted(scores, owner):
    """(rank of each text's image, of each image's best text, ties both ways), one comparison at a time."""
    texts, images = scores.shape
    of_images, tied_texts = [], 0
    for t in range(texts):
        right = scores[t, owner[t]]
        wrong = [scores[t, i] for i in range(images) if i != owner[t]]
        of_images.append(sum(score >= right for score in wrong))
        tied_texts += any(score == right for score in wrong)
    of_texts, tied_images = [], 0
    for i in range(images):
        best = max(scores[t, i] for t in range(texts) if owner[t] == i)
        wrong = [scores[t, i] for t in range(texts) if owner[t] != i]
        of_texts.append(sum(score >= best for score in wrong))
        tied_images += any(score == best for score in wrong)
    return of_images, of_texts, tied_texts, tied_images


@pytest.mark.parametrize("levels", [None, 2, 5, 40])
@pytest.mark.parametrize("block", [1, 7 * 20, 1 << 20])
def test_ranks_are_those_of_a_count(levels, block):
    scores, owner = made(levels=levels)
    found = ranks(scores, owner, block=block)
    of_images, of_texts, tied_texts, tied_images = counted(scores, owner)
    assert found.of_images.tolist() == of_images and found.of_texts.tolist() == of_texts
    assert (found.tied_texts, found.tied_images) == (tied_texts, tied_images)
    assert (tied_texts > 0) == (levels is not None)
    figures = found.figures()
    for k in (1, 5, 10):
        assert figures[f"ir_r{k}"] == sum(rank < k for rank in of_images) / 60
        assert figures[f"tr_r{k}"] == sum(rank < k for rank in of_texts) / 20
    assert figures["ir_ties"] == tied_texts / 60 and figures["tr_ties"] == tied_images / 20
    assert 0 < figures["ir_r5"] < 1


def test_a_hit_is_any_of_an_images_texts():
    owner = np.array([0, 0, 1])
    scores = np.array([[0.1, 0.0], [0.9, 0.0], [0.5, 1.0]], dtype=np.float32)
    found = ranks(scores, owner)
    assert found.of_texts.tolist() == [0, 0]  # image 0: its second text leads, its first does not matter
    assert found.of_images.tolist() == [0, 0, 0]
    # Its own texts level with each other are no tie.
    level = ranks(np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32), owner)
    assert level.figures()["tr_ties"] == 0 and level.of_texts.tolist() == [0, 0]


def test_a_model_that_says_nothing_finds_nothing():
    scores = np.zeros((40, 20), dtype=np.float32)
    found = ranks(scores, np.arange(40) // 2)
    figures = found.figures()
    assert all(figures[f"{way}_r{k}"] == 0 for way in ("tr", "ir") for k in (1, 5, 10))
    assert figures["tr_ties"] == figures["ir_ties"] == 1
    assert set(found.of_images.tolist()) == {19} and set(found.of_texts.tolist()) == {38}


@pytest.mark.parametrize("in_order", [True, False])
def test_folds_are_slices_of_the_images_with_their_texts(in_order):
    scores, owner = made(levels=30)
    if in_order:
        order = np.argsort(owner, kind="stable")
        scores, owner = scores[order], owner[order]
    each = []
    for first in range(0, 20, 4):
        own = (owner >= first) & (owner < first + 4)
        part = ranks(np.ascontiguousarray(scores[own][:, first : first + 4]), owner[own] - first)
        sliced = ranks(scores, owner, images=range(first, first + 4), block=8)
        assert sliced.of_images.tolist() == part.of_images.tolist()
        assert sliced.of_texts.tolist() == part.of_texts.tolist()
        each.append(part.figures())
    folds = fold_figures(scores, owner)
    assert folds == {name: pytest.approx(np.mean([one[name] for one in each])) for name in each[0]}
    with pytest.raises(ValueError, match="20 images do not divide into 3 equal folds"):
        fold_figures(scores, owner, folds=3)


def test_a_matrix_in_a_file_is_read_by_blocks(tmp_path):
    scores, owner = made()
    np.save(tmp_path / "scores.npy", scores)
    stored = np.load(tmp_path / "scores.npy", mmap_mode="r")
    assert ranks(stored, owner, block=100).figures() == ranks(scores, owner).figures()


def test_infinite_scores_have_ranks():
    scores = np.array([[-np.inf, 0], [-np.inf, np.inf]], dtype=np.float32)
    found = ranks(scores, np.array([0, 1]))
    assert found.of_images.tolist() == [1, 0] and found.of_texts.tolist() == [1, 0]
    assert found.tied_images == 1 and found.tied_texts == 0


def test_what_cannot_be_ranked_is_refused():
    scores, owner = made()
    for given, message in (
        ((scores[0], owner), r"scores must be floating-point \[texts, images\]"),
        ((scores.astype(int), owner), r"scores must be floating-point \[texts, images\]"),
        ((scores, owner[1:]), "image_of_text must be 60 integers"),
        ((scores, owner.astype(float)), "image_of_text must be 60 integers"),
        ((scores, owner + 1), r"image_of_text must name images 0 \.\. 19"),
        ((scores, np.where(owner == 3, 4, owner)), "image 3 has no text"),
    ):
        with pytest.raises(ValueError, match=message):
            ranks(*given)
    with pytest.raises(ValueError, match="images must be a range within the 20 there are"):
        ranks(scores, owner, images=range(10, 21))
    scores[7, 11] = np.nan
    with pytest.raises(ValueError, match="the score of text 7 and image 11 is NaN"):
        ranks(scores, owner, block=40)


def test_some_queries_are_told_apart_among_all_candidates():
    scores, owner = made(levels=30)
    found, chosen = ranks(scores, owner), np.arange(20) % 3 == 0
    few = found.among(chosen, owner).figures()
    of_images, of_texts, _, _ = counted(scores, owner)
    for k in (1, 5, 10):
        own = [rank < k for rank, image in zip(of_images, owner, strict=True) if chosen[image]]
        assert few[f"ir_r{k}"] == np.mean(own)
        assert few[f"tr_r{k}"] == np.mean([rank < k for rank in np.array(of_texts)[chosen]])
    everyone = found.among(np.ones(20, dtype=bool), owner)
    assert everyone.figures() == found.figures() != few
    alone = [found.among(np.arange(20) == image, owner) for image in range(20)]
    assert sum(one.tied_texts for one in alone) == found.tied_texts > 0
    assert sum(one.tied_images for one in alone) == found.tied_images > 0
