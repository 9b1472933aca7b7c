"""The finished blocks of a matrix of scores, kept on disk so that a killed evaluation goes on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.retrieval import room
from pixelbert_fast.tasks.whole_file import written_whole

_ELSEWHERE = "make room there, or have it elsewhere (beside --out, or without that in TMPDIR)"
_CARD, _MATRIX, _BLOCKS = "card.json", "scores.npy", "blocks"


@dataclass(frozen=True)
class Block:
    """A part of the matrix: these texts (rows) beside these images (columns), int64 each."""

    texts: np.ndarray
    images: np.ndarray


class BlockStore:
    """A folder of finished blocks, each a file that is whole or not there; in the end the matrix."""

    def __init__(self, directory: str | Path, shape: tuple[int, int], signature: str):
        """Opens the folder; several processes may do so at once.

        Args:
            shape: texts and images.
            signature: of all that the scores depend on, the division into blocks included.

        Raises:
            UserError: the folder holds other scores, or the disk has not room for these.
        """
        self.directory, self.shape = Path(directory), shape
        card = {"shape": list(shape), "signature": signature}
        (self.directory / _BLOCKS).mkdir(parents=True, exist_ok=True)
        path = self.directory / _CARD
        if path.exists():
            if _read(path) != card:
                raise UserError(
                    f"{self.directory} holds the scores of another model, set or division into blocks; "
                    "remove it, or name another folder"
                )
        else:
            with self._told_when_full(), written_whole(path, unique=True) as file:
                file.write(json.dumps(card) + "\n")
        check_room(self.directory, shape)

    def matrix(self) -> np.ndarray | None:
        """float32 ``[texts, images]``, mapped into memory; None until it has been put together."""
        path = self.directory / _MATRIX
        return _loaded(path, mmap_mode="r") if path.exists() else None

    def finished(self, number: int) -> bool:
        return self._path(number).exists()

    def keep(self, number: int, scores: np.ndarray) -> None:
        """Writes a block's scores, float32 ``[texts, images]`` of the block."""
        path = self._path(number)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with self._told_when_full(), open(partial, "wb") as file:
            np.save(file, scores)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)

    def put_together(self, blocks: Sequence[Block], first: np.ndarray | None = None) -> np.ndarray:
        """The matrix, of which every block must be finished; the blocks are removed.

        first: int64 ``[texts]``, the text whose scores each one has; None: each its own.
        """
        partial = self.directory / f"{_MATRIX}.partial"
        whole = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=self.shape)
        with self._told_when_full():
            # A map of a file with holes ends the process by a signal where the disk is full.
            room.reserve(partial, whole.offset + whole.nbytes, again=True)
        for number, block in enumerate(blocks):
            whole[np.ix_(block.texts, block.images)] = _loaded(self._path(number))
        for text in np.flatnonzero(first != np.arange(len(whole))) if first is not None else ():
            whole[text] = whole[first[text]]
        whole.flush()
        del whole
        os.replace(partial, self.directory / _MATRIX)
        for path in (self.directory / _BLOCKS).iterdir():
            path.unlink()
        return self.matrix()

    def _told_when_full(self) -> contextlib.AbstractContextManager[None]:
        return room.told_when_full(self.directory, f"{_ELSEWHERE}; with the same folder it goes on")

    def _path(self, number: int) -> Path:
        return self.directory / _BLOCKS / f"{number:07d}.npy"


def _loaded(path: Path, **options) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False, **options)
    except (EOFError, ValueError) as error:
        raise UserError(
            f"{path} is not the file of scores that was written here ({error}): "
            f"remove {path.name} and run it again"
        ) from error


def _read(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # what a power cut can leave
        return None


def check_room(directory: Path, shape: tuple[int, int]) -> None:
    """For what a `BlockStore` there still needs: blocks, and beside them all the matrix in the end.

    Raises UserError; the folder need not be there, the one that it lies in must.
    """
    if (directory / _MATRIX).exists():
        return
    there = sum(path.stat().st_size for path in (directory / _BLOCKS).glob("*.npy"))
    needed, left = 2 * 4 * shape[0] * shape[1] - there, room.free(directory.parent)
    if needed > left:
        raise UserError(
            f"the scores of {shape[0]} texts and {shape[1]} images take {room.gigabytes(needed)} in "
            f"{directory} until they are put together, where {room.gigabytes(left)} is free: {_ELSEWHERE}"
        )
