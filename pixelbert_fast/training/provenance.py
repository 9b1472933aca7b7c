"""What made a file: the versions of everything its figures depend on, and the source's revision."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pixelbert_fast.machine import processor_name

_PACKAGES = ("pixelbert_fast", "torch", "transformers", "datasets", "deepspeed", "numpy", "pillow")
_CHECKOUT = Path(__file__).resolve().parents[2]


def versions() -> dict[str, str]:
    """Of Python and the packages by name; "not installed" for one that is not."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def revision(checkout: Path = _CHECKOUT) -> str | None:
    """The commit of the checkout that the package runs from, with "-dirty" where tracked files are changed.

    None where it runs from no checkout of its own, or git cannot be asked.
    """
    # Installed packages may lie inside somebody else's checkout.
    if not (checkout / ".git").exists():
        return None
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def made_by() -> dict[str, Any]:
    """Both, as states and exports record them."""
    return {"versions": versions(), "revision": revision()}


def machine() -> dict[str, Any]:
    """What a run's figures of time and memory are of: processor, cores it may use, memory in GB, GPUs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": cores,
    }
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found["memory_gb"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    found["gpus"] = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return found


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """In words, what of two `made_by` is not the same."""
    before, now = (dict(made.get("versions") or {}) for made in (there, here))
    found = [
        f"{name} {before[name]}, now {now[name]}"
        for name in before
        if name in now and before[name] != now[name]
    ]
    if there.get("revision") != here.get("revision"):
        found.append(f"revision {there.get('revision')}, now {here.get('revision')}")
    return found


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()
