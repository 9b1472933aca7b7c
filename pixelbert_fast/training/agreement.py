"""What the processes of a run must have in common before it begins: configuration and output folder."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.folder import first_difference
from pixelbert_fast.training.ranks import PeerError, Ranks, exit_status

# A network filesystem may show another machine's files that much later.
_PATIENCE = 60.0
# The output may be seen at another path, and machines may have unlike cores.
_OF_EACH = {("output",), ("training", "threads")}


def same_configuration(config: dict[str, Any], ranks: Ranks) -> None:
    """Refuse processes that were told different things; called by all.

    Raises:
        UserError: in the first process, with the key in question; `PeerError` in the others.
    """
    reason = None
    for rank, other in enumerate(ranks.collect(config)):
        difference = first_difference(config, other, _OF_EACH)
        if difference is not None and reason is None:
            key, here, there = difference
            reason = (
                f"process {rank} was given {key} = {there!r} and process {ranks.rank} {here!r}; give all"
                " machines the same recipe and the same options"
            )
    _end_together(reason, ranks)


def same_folder(folder: Path, ranks: Ranks, patience: float = _PATIENCE) -> None:
    """Refuse an output folder that the first process does not share with all; called when it is there.

    patience: seconds to wait for a file of another machine.

    Raises:
        UserError: in the first process, naming the others; `PeerError` in those.
    """
    if ranks.world == 1:
        return
    host = socket.gethostname()
    name, first_host = ranks.first_does(lambda: (_mark(folder), host))
    until = time.monotonic() + (patience if host != first_host else 0.0)
    while not (seen := (folder / name).is_file()) and time.monotonic() < until:
        time.sleep(0.5)
    blind = [place for place in ranks.collect(None if seen else (ranks.rank, host)) if place]
    if ranks.first:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    _end_together(_blindness(folder, blind), ranks)


def _blindness(folder: Path, blind: Sequence[tuple[int, str]]) -> str | None:
    if not blind:
        return None
    rank, host = blind[0]
    more = f" (and {len(blind) - 1} more)" if len(blind) > 1 else ""
    return (
        f"process {rank} on {host}{more} does not see what the first process writes into the output"
        f" {folder}; give an output=FOLDER that all machines share"
    )


def _mark(folder: Path) -> str:
    name = f".seen-{secrets.token_hex(8)}"
    try:
        for old in folder.glob(".seen-*"):  # of a run that was killed just here
            old.unlink(missing_ok=True)
        (folder / name).touch()
    except OSError as error:
        raise UserError(
            f"the output {folder} cannot be written ({error.strerror}); choose another output=FOLDER"
        ) from None
    return name


def _end_together(reason: str | None, ranks: Ranks) -> None:
    """Raise if any process has a reason to: the first one tells its own, as it knows every other's."""
    if ranks.any(reason is not None):
        error = UserError(reason or "the processes of this run differ")
        raise error if ranks.first else PeerError(exit_status(error))
