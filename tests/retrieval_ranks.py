"""One of several processes that score a matrix; run by tests/test_retrieval_scoring.py."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from pixelbert_fast.tasks.retrieval.scoring import ScoringOptions, score_matrix
from pixelbert_fast.tasks.retrieval.share import Share
from tests.test_retrieval_scoring import case

if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    share = Share(dist.get_rank(), dist.get_world_size(), dist.barrier)
    options = ScoringOptions(pairs_per_block=6)
    done = []
    found = score_matrix(
        *case(), options=options, directory=sys.argv[1], share=share, progress=lambda *at: done.append(at)
    )
    torch.save((torch.from_numpy(found.copy()), done[-1]), f"{sys.argv[1]}/rank{share.rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
