"""The matrix of scores: its blocks, what is kept of them, and the processes that share them."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelbert_fast import PixelBertForImageTextRetrieval
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.pair_scores import PairScorer
from pixelbert_fast.tasks.retrieval import room
from pixelbert_fast.tasks.retrieval.scoring import HeldPixels, ScoringOptions, plan_blocks, score_matrix
from pixelbert_fast.tasks.retrieval.share import Share
from tests.small_models import config, stir

ROOT = Path(__file__).resolve().parent.parent
# As in test_pair_scores.py; passes of other sizes add in another order.
CLOSE = {"atol": 2e-5, "rtol": 0}


def case():
    """(scorer, texts of three lengths, images of three numbers of pixels)."""
    torch.manual_seed(0)
    model = stir(PixelBertForImageTextRetrieval(config())).eval()
    stream = np.random.default_rng(0)
    texts = [stream.integers(5, 50, size=length) for length in (4, 7, 4, 5, 7, 4, 7, 5, 4, 4)]
    tokens = [torch.from_numpy(stream.normal(size=(count, 32))).float() for count in (6, 4, 6, 6, 1, 4, 6)]
    return PairScorer(model), texts, HeldPixels(tokens)


def pair_by_pair(scorer, texts, pixels):
    rows = [
        [
            scorer.scores(scorer.texts(torch.from_numpy(ids)[None]), scorer.images(pixels.values([image])))[
                0, 0
            ]
            for image in range(len(pixels.counts))
        ]
        for ids in texts
    ]
    return torch.tensor(rows)


def test_every_pair_has_its_own_score():
    given = case()
    expected = pair_by_pair(*given)
    assert expected.std() > 100 * CLOSE["atol"]
    for options in (
        ScoringOptions(),
        ScoringOptions(pairs_per_block=1),
        ScoringOptions(pairs_per_block=7, memory_megabytes=0.02),
    ):
        found = torch.from_numpy(score_matrix(*given, options=options))
        torch.testing.assert_close(found, expected, **CLOSE)


def test_blocks_are_dense_bounded_and_hold_every_pair_once():
    lengths, counts = np.array([5, 3, 5, 5, 9, 3]), np.array([2, 8, 2, 2, 8])
    for pairs, megabytes in ((4096, 1024.0), (4, 1024.0), (4096, 0.001)):
        options = ScoringOptions(pairs_per_block=pairs, memory_megabytes=megabytes)
        times = np.zeros((6, 5), dtype=int)
        for block in plan_blocks(lengths, counts, 16, options):
            assert len(set(lengths[block.texts])) == len(set(counts[block.images])) == 1
            assert len(block.texts) * len(block.images) <= pairs
            for side, of in ((block.texts, lengths), (block.images, counts)):
                assert len(side) == 1 or len(side) * of[side[0]] * 16 <= megabytes * 2**20 / 4
            times[np.ix_(block.texts, block.images)] += 1
        assert (times == 1).all()


class Killed(Exception):
    pass


def test_a_killed_evaluation_goes_on(tmp_path):
    given, options = case(), ScoringOptions(pairs_per_block=6)
    whole = score_matrix(*given, options=options)
    calls = []

    def kill(done, total):
        calls.append(done)
        if len(calls) == 5:
            raise Killed

    with pytest.raises(Killed):
        score_matrix(*given, options=options, directory=tmp_path, progress=kill)
    kept = sorted((tmp_path / "blocks").iterdir())
    assert len(kept) == 5
    # What a kill leaves of a block that it was writing is no block.
    (tmp_path / "blocks" / "0000005.npy.77.partial").write_bytes(b"half")
    scorer = given[0]
    scored, real = [], scorer.scores
    scorer.scores = lambda *sides: scored.append(1) or real(*sides)
    found = score_matrix(*given, options=options, directory=tmp_path)
    total = len(plan_blocks(np.array([len(t) for t in given[1]]), given[2].counts, 512, options))
    assert len(scored) == total - 5
    np.testing.assert_array_equal(found, whole)
    assert not list((tmp_path / "blocks").iterdir())
    again = score_matrix(*given, options=options, directory=tmp_path)
    assert len(scored) == total - 5
    np.testing.assert_array_equal(again, whole)


def test_scores_of_something_else_are_refused(tmp_path):
    given = case()
    score_matrix(*given, directory=tmp_path, signature="one")
    with pytest.raises(UserError, match="scores of another"):
        score_matrix(*given, directory=tmp_path, signature="two")
    with pytest.raises(UserError, match="scores of another"):
        score_matrix(given[0], given[1][::-1], given[2], directory=tmp_path, signature="one")


def test_two_processes_give_what_one_gives(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.retrieval_ranks", str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, **there, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [one.wait(timeout=120) for one in ranks] == [0, 0]
    alone = torch.from_numpy(score_matrix(*case(), options=ScoringOptions(pairs_per_block=6)))
    shares = []
    for rank in range(2):
        found, (done, total) = torch.load(tmp_path / f"rank{rank}.pt")
        # The same blocks by the same passes, in whichever process.
        assert torch.equal(found, alone)
        assert done == total
        shares.append(total)
    assert sum(shares) == alone.numel() and min(shares) > alone.numel() / 4


def test_several_processes_need_a_folder():
    with pytest.raises(ValueError, match="directory"):
        score_matrix(*case(), share=Share(0, 2))


@pytest.mark.parametrize("pairs", [4096, 7])
@pytest.mark.parametrize("kept", [True, False])
def test_a_text_that_is_there_twice_has_the_same_scores_to_the_bit(tmp_path, pairs, kept):
    """In different passes they would be rounded differently, and a tie would be luck."""
    scorer, texts, pixels = case()
    again = [texts[0]] * 5 + texts + [texts[3], texts[0]]
    options = ScoringOptions(pairs_per_block=pairs)
    found = score_matrix(scorer, again, pixels, options=options, directory=tmp_path if kept else None)
    for number in (1, 2, 3, 4, 5, -1):
        np.testing.assert_array_equal(found[number], found[0])
    np.testing.assert_array_equal(found[-2], found[8])
    expected = score_matrix(scorer, texts, pixels)
    np.testing.assert_allclose(found[5:-2], expected, **CLOSE)


def test_room_for_the_scores_is_asked_for_before_the_first_and_told_when_it_ends(tmp_path, monkeypatch):
    given, options = case(), ScoringOptions(pairs_per_block=6)
    needed = 2 * 4 * len(given[1]) * len(given[2].counts)
    free = [needed - 1]
    monkeypatch.setattr(room, "free", lambda _: free[0])
    with pytest.raises(UserError, match=r"scores of 10 texts and 7 images take .* make room"):
        score_matrix(*given, options=options, directory=tmp_path)
    free[0] = needed
    real = os.posix_fallocate

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"No space left.*goes on"):
        score_matrix(*given, options=options, directory=tmp_path)
    assert list((tmp_path / "blocks").iterdir()), "the finished blocks are kept"
    monkeypatch.setattr(os, "posix_fallocate", real)
    scorer = given[0]
    scorer.scores = lambda *_: pytest.fail("computed again")
    found = score_matrix(*given, options=options, directory=tmp_path)
    np.testing.assert_array_equal(found, score_matrix(*case(), options=options))


def test_a_card_that_cannot_be_read_is_no_card_of_these_scores(tmp_path):
    given = case()
    score_matrix(*given, directory=tmp_path)
    (tmp_path / "card.json").write_text("")
    with pytest.raises(UserError, match="scores of another"):
        score_matrix(*given, directory=tmp_path)
