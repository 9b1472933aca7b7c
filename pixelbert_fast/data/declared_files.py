"""What a folder's own lists of files may name: files of that folder, and nothing of the network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pixelbert_fast.errors import UserError

_MOST = 1_000_000
"""Values that a folder declares; a few aliases of aliases can stand for any number."""


def check_saved(directory: Path) -> None:
    """Of a folder that `save_to_disk` wrote: its list of Arrow files names files that lie in it.

    Raises UserError where one lies elsewhere. A folder without a list that can be read is left to `datasets`.
    """
    try:
        listed = json.loads((directory / "state.json").read_text(encoding="utf-8"))["_data_files"]
        names = [one["filename"] for one in listed]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    for name in names:
        if not is_plain(name):
            raise UserError(
                f"{directory}/state.json names {name!r}, which is no file of that folder: mend it"
            )


def is_plain(name: Any) -> bool:
    """Whether it is the name of something that lies in a folder itself."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def check_declared(directory: Path) -> None:
    """Of a folder of tables: what README.md and .huggingface.yaml declare as data lies below it.

    `datasets` would follow a URL, an absolute path or `..` there. Raises UserError for these, and for a list
    that cannot be read.
    """
    for name in ("README.md", ".huggingface.yaml"):
        file = directory / name
        if not file.is_file():
            continue
        try:
            declared = list(_patterns(_metadata(file).get("configs")))
        except Exception as error:  # of YAML, of huggingface_hub, of the disk
            reason = " ".join(str(error).split())
            raise UserError(f"{file} cannot be read as YAML ({reason}): mend or remove it") from error
        for pattern in declared:
            parts = PurePosixPath(pattern).parts
            if ":" in pattern or "\\" in pattern or ".." in parts or pattern.startswith(("/", "~")):
                raise UserError(
                    f"{file} declares data outside its folder, {pattern[:80]!r}, which is never read: put "
                    "the files there and name them relative to it"
                )


def _metadata(file: Path) -> dict:
    if file.suffix == ".md":
        from huggingface_hub import DatasetCard

        return DatasetCard.load(file).data.to_dict()
    import yaml

    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _patterns(declared: Any) -> Iterator[str]:
    """Every string under a key `data_files` or `data_dir`.

    Raises ValueError where there is too much to look at, which `datasets` would not come to the end of.
    """
    left, found = [(declared, False)], 0
    while left:
        value, within = left.pop()
        found += 1
        if found > _MOST:
            raise ValueError(f"more than {_MOST:,} values, every alias written out")
        if isinstance(value, dict):
            left += [(below, within or key in ("data_files", "data_dir")) for key, below in value.items()]
        elif isinstance(value, list):
            left += [(below, within) for below in value]
        elif within and isinstance(value, str):
            yield value
