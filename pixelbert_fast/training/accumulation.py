"""From the global batch to backward passes a step, on however many processes there are."""

from __future__ import annotations

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.config import RunConfig


def pairs_per_pass(config: RunConfig, world: int) -> int:
    """Image-text pairs of one backward pass of `world` processes, at most: of full batches, none left out."""
    images = config.training.images_per_batch
    if config.task == "nlvr2":
        return world * max(images // 2, 1)  # a statement is about two
    return world * images * (1 if config.task in ("objects", "retrieval") else config.data.captions_per_image)


def with_accumulation(config: RunConfig, world: int) -> RunConfig:
    """`config` with `training.accumulation` from `training.pairs_per_step`, which becomes None.

    So a run that goes on with another number of processes keeps its global batch.

    Raises:
        UserError: the global batch is no multiple of a pass; the nearest that are get named.
    """
    wanted = config.training.pairs_per_step
    if wanted is None:
        return config
    a_pass = pairs_per_pass(config, world)
    passes, rest = divmod(wanted, a_pass)
    if rest:
        nearest = " and ".join(str(count * a_pass) for count in (passes, passes + 1) if count)
        raise UserError(
            f"training.pairs_per_step = {wanted} is no multiple of the {a_pass} pairs that {_said(world)}"
            f" with training.images_per_batch = {config.training.images_per_batch} read in a pass; the"
            f" nearest {'are' if passes else 'is'} {nearest}, or change training.images_per_batch"
        )
    training = config.training.model_copy(update={"accumulation": passes, "pairs_per_step": None})
    return config.model_copy(update={"training": training})


def _said(world: int) -> str:
    return "1 process" if world == 1 else f"{world} processes"
