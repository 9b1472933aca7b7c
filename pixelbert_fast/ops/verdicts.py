"""What `pixelbert selftest` found wrong on this machine, kept so that automatic choice avoids it.

A file in the user's cache directory (``$XDG_CACHE_HOME/pixelbert_fast``, by default ``~/.cache``) holds the
backends that disagreed. A verdict counts only in the circumstances it was found in: the package's version,
the built libraries, torch, Triton and the device.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import tempfile
from functools import cache
from pathlib import Path

import torch

from .. import __version__, machine
from .cpu_backend import library
from .cuda_backend import library_path

_FORMAT = 1
_logger = logging.getLogger(__name__)

Pair = tuple[str, str]
"""An op and a backend."""


def file() -> Path:
    """Where the verdicts are kept."""
    cache_home = os.environ.get("XDG_CACHE_HOME", "")
    # As its specification says, a relative path there is to be ignored.
    directory = Path(cache_home) if os.path.isabs(cache_home) else Path.home() / ".cache"
    return directory / "pixelbert_fast" / "selftest.json"


@cache
def avoided(device_type: str) -> dict[Pair, str]:
    """What automatic choice avoids on devices of that type, and why; the file is read once."""
    wrong = _read()
    if not wrong:
        return {}
    found: dict[Pair, str] = {}
    for device in _devices(device_type):
        for name, sentence in wrong.get(circumstances(device), {}).items():
            op, _, backend = name.partition("/")
            found[op, backend] = sentence
    return found


def keep(device: torch.device, wrong: dict[Pair, str], right: set[Pair]) -> None:
    """Add what was found `wrong` on `device` to the file, and take out what was found `right`.

    Raises:
        OSError: the file cannot be written.
    """
    verdicts, key = _read(), circumstances(device)
    here = {name: why for name, why in verdicts.pop(key, {}).items() if tuple(name.split("/")) not in right}
    here |= {"/".join(pair): why for pair, why in wrong.items()}
    avoided.cache_clear()
    if here:
        verdicts[key] = here
    elif not file().exists():
        return
    _write({"format": _FORMAT, "wrong": verdicts})


def circumstances(device: torch.device) -> str:
    """All that a verdict about `device` depends on, as one line."""
    paths = [path for path in (library(), library_path()) if path is not None]
    built = hashlib.sha256(b"".join(map(Path.read_bytes, paths))).hexdigest()[:16] if paths else "none"
    versions = f"pixelbert_fast {__version__}, torch {torch.__version__}, triton {_triton_version()}"
    return f"{versions}, library {built}, {device.type} {device_name(device)}"


def device_name(device: torch.device) -> str:
    """The device's model, as `AMD EPYC 7763 (AVX2)` or `NVIDIA H100 80GB HBM3`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{machine.processor_name()} ({torch.backends.cpu.get_cpu_capability()})"


def _triton_version() -> str:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _devices(device_type: str) -> list[torch.device]:
    if device_type == "cuda":
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    return [torch.device(device_type)]


def _read() -> dict[str, dict[str, str]]:
    try:
        stored = json.loads(file().read_text(encoding="utf-8"))
        if stored["format"] != _FORMAT:
            raise ValueError(f"its format is {stored['format']!r}")
        return {
            key: {str(name): str(why) for name, why in here.items()} for key, here in stored["wrong"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _logger.debug("%s is ignored, it cannot be read: %s", file(), error)
        return {}


def _write(content: dict) -> None:
    """In one step: a reader finds the old file or the new one."""
    directory = file().parent
    directory.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=directory, prefix=".selftest-", text=True)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2)
        os.replace(name, file())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
