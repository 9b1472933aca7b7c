"""What made a file: the versions of everything its figures depend on, and the source's revision."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
