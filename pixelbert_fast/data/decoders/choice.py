"""Which decoder runs: by argument, by environment, or the best there is.

A decoder is a module of this package that defines ``NAME`` and ``why_not(device_type)``: None where it can
decode to that kind of device, otherwise a sentence of why not.
"""

from __future__ import annotations

import logging
from functools import cache

import torch

from ...environment import DECODER
from ...errors import UserError, nearest
from . import dali, plain
from .contract import Decoder
from .normalising import Normalisation

MODULES = {"dali": dali, "plain": plain}
DECODERS = tuple(MODULES)

# In the order of trying. On a CPU plain is faster (benchmarks/bench_decoding.py); a GPU decodes with DALI.
AUTOMATIC = {"cpu": ("plain",), "cuda": ("dali", "plain")}

_logger = logging.getLogger(__name__)


def make_decoder(
    normalisation: Normalisation,
    name: str | None = None,
    device: torch.device | str = "cpu",
    threads: int | None = None,
) -> Decoder:
    """The decoder `choose` names; its batches are on `device`, except those of `plain`, which are on the CPU.

    Raises UserError as `choose` does.
    """
    device = torch.device(device)
    if choose(name, device.type) == "dali":
        return dali.DaliDecoder(normalisation, device, threads)
    return plain.PlainDecoder(normalisation, threads)


def choose(name: str | None = None, device_type: str = "cpu") -> str:
    """The name of the decoder for that kind of device; `name` is the caller's wish, "auto" or None for none.

    Raises UserError when `name` is no decoder's, or one asked for by name, here or in the environment, cannot
    run.
    """
    if name not in (None, "auto", *DECODERS):
        guess = nearest(str(name), DECODERS)
        hint = f"did you mean {guess!r}?" if guess else f"the decoders are {', '.join(DECODERS)}"
        raise UserError(f"{name!r} is not a decoder: {hint}")
    wish = name if name not in (None, "auto") else DECODER.read()
    if wish == "auto":
        return automatic(device_type)
    reason = why_not(wish, device_type)
    if reason is not None:
        raise UserError(f"the decoder {wish!r} cannot run: {reason}")
    return wish


def automatic(device_type: str) -> str:
    """The best decoder that can run for that kind of device."""
    for candidate in AUTOMATIC.get(device_type, ()):
        reason = why_not(candidate, device_type)
        if reason is None:
            return candidate
        _say_once(candidate, reason)
    return plain.NAME


def why_not(name: str, device_type: str) -> str | None:
    """None where the decoder `name` can decode for that kind of device, otherwise why not."""
    return MODULES[name].why_not(device_type)


@cache
def _say_once(name: str, reason: str) -> None:
    _logger.info("automatic choice passes over the decoder %r: %s", name, reason)
