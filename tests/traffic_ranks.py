"""Counts the bytes that DeepSpeed hands to torch.distributed in an update of a small real model.

`test_traffic` starts it in two processes. Prints a JSON line for each stage.
"""

from __future__ import annotations

import json
from collections import Counter

import torch
import torch.distributed

from pixelbert_fast.training import deepspeed_engine as engines
from pixelbert_fast.training.ranks import Ranks
from tests.engine_cases import build, deepspeed_engine, train

ACCUMULATION = 3
# An update is counted when DeepSpeed has seen in which order weights are used.
SEEN = 2
# By the function of torch.distributed that DeepSpeed calls, which of its arguments is as long as the whole.
WHOLE = {
    "all_reduce": (0, "tensor"),
    "reduce": (0, "tensor"),
    "broadcast": (0, "tensor"),
    "all_gather_into_tensor": (0, "output_tensor"),
    "all_gather": (0, "tensor_list"),
    "reduce_scatter_tensor": (1, "input"),
    "reduce_scatter": (1, "input_list"),
}


def count_calls(sent: Counter) -> None:
    """Puts functions that add to `sent` in the place of torch.distributed's own."""
    for name, (place, keyword) in WHOLE.items():
        own = getattr(torch.distributed, name)

        def counted(*given, own=own, name=name, place=place, keyword=keyword, **named):
            whole = given[place] if len(given) > place else named[keyword]
            sent[name] += sum(one.nbytes for one in (whole if isinstance(whole, list) else [whole]))
            return own(*given, **named)

        setattr(torch.distributed, name, counted)


def sent_in_an_update(ranks: Ranks, stage: int, sent: Counter, **options) -> dict:
    # By default weights as small as all of this model's are in every process, at stage 3 too.
    zero = {"stage3_param_persistence_threshold": 0, **options.pop("zero", {})}
    engine = deepspeed_engine(
        build(),
        ranks,
        zero_stage=stage,
        accumulation=ACCUMULATION,
        extra={"zero_optimization": zero},
        **options,
    )
    weights = sum(getattr(weight, "ds_numel", weight.numel()) for weight in engine.module.parameters())
    train(engine, range(SEEN), range(ACCUMULATION))
    sent.clear()
    train(engine, range(SEEN, SEEN + 1), range(ACCUMULATION))
    found = {"stage": stage, "weights": weights, "sent": dict(sent)}
    engine.close()
    return found


def main() -> None:
    torch.set_num_threads(1)
    sent: Counter = Counter()
    # DeepSpeed keeps some of these functions when it starts.
    count_calls(sent)
    ranks = engines.join()
    cases = [(stage, {"precision": "bf16"}) for stage in range(4)]
    cases += [(1, {"overlap_comm": True}), (2, {"zero": {"use_multi_rank_bucket_allreduce": False}})]
    for stage, options in cases:
        found = sent_in_an_update(ranks, stage, sent, **options)
        if ranks.first:
            print(json.dumps(found), flush=True)
    engines.leave()


if __name__ == "__main__":
    main()
