"""What `pixelbert env` tells: versions, machine, variables, the build, which backends and decoders can run.

Nothing here fails because something is broken: a section that cannot be told says what is in its way.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from . import __version__, _build, _build_host, machine
from .environment import VARIABLES
from .errors import RunError, UserError

PACKAGES = ("torch", "transformers", "triton", "deepspeed", "nvidia-dali", "simplejpeg", "ninja", "pybind11")
_NOT_INSTALLED = "not installed"
_CPU_LEVELS = ("portable", "AVX2", "AVX-512")
_BROKEN = "broken"


def report() -> dict[str, Any]:
    """Return every section by name; a broken one is ``{"broken": what was raised}``."""
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "versions": _versions,
        "machine": _machine,
        "torch": _torch,
        "environment": _environment,
        "build": _build_record,
        "native": _native,
        "ops": _ops,
        "decoders": _decoders,
    }
    return {name: _told(section) for name, section in sections.items()}


def text(sections: dict[str, Any]) -> str:
    """Return a report as lines for people: a heading a section, and values in a column."""
    lines = []
    for name, section in sections.items():
        rows = _rows(name, section)
        width = max(map(len, rows), default=0)
        lines += ["", name]
        for key, values in rows.items():
            lines += [f"  {'' if n else key:<{width}}  {value}".rstrip() for n, value in enumerate(values)]
    return "\n".join(lines[1:])


def _told(section: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return section()
    except RunError as error:
        return {_BROKEN: str(error)}
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        return {_BROKEN: f"{type(error).__name__}: {said}"}


def _versions() -> dict[str, Any]:
    return {
        "pixelbert_fast": __version__,
        "python": platform.python_version(),
        **{package: _installed(package) for package in PACKAGES},
    }


def _installed(package: str) -> str:
    """The version of a package, from its metadata alone: importing some takes seconds."""
    try:
        if package != "nvidia-dali":
            return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return _NOT_INSTALLED
    # DALI is published under one name for each version of CUDA.
    for found in importlib.metadata.distributions():
        name = found.metadata["Name"] or ""
        if name.startswith("nvidia-dali-cuda"):
            return f"{found.version} ({name})"
    return _NOT_INSTALLED


def _machine() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"platform": platform.platform(), "processor": machine.processor_name(), "processors": usable}


def _torch() -> dict[str, Any]:
    import torch

    gpus = []
    for number in range(torch.cuda.device_count()):
        has = torch.cuda.get_device_properties(number)
        gpus.append(
            {
                "name": has.name,
                "compute_capability": f"{has.major}.{has.minor}",
                "memory_gib": round(has.total_memory / 2**30, 1),
            }
        )
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
    }


def _environment() -> dict[str, Any]:
    told = {}
    for variable in VARIABLES:
        told[variable.name] = {"value": variable.given(), "default": variable.default, "problem": None}
        try:
            variable.read()
        except UserError as error:
            told[variable.name]["problem"] = str(error)
    return told


def _build_record() -> dict[str, Any]:
    return _build.read_record(Path(__file__).resolve().parent)


def _native() -> dict[str, Any]:
    from .ops import cpu_backend

    path, why_not = cpu_backend.library(), cpu_backend.why_not_loaded()
    told: dict[str, Any] = {"library": str(path) if path else None, "problem": why_not, "cpu_level": None}
    if why_not is None:
        import torch

        best = torch.ops.pixelbert_fast_native.use_cpu_level(len(_CPU_LEVELS) - 1)
        told["cpu_level"] = _CPU_LEVELS[best]
    return told | {"host_module": _told(_host_module)}


def _host_module() -> dict[str, Any]:
    package = Path(__file__).resolve().parent
    if not (package / _build_host.library_name()).is_file():
        return {"problem": f"not built: {_build.read_record(package)['host']['reason']}"}
    from . import _host

    return _host.build_record()


def _ops() -> dict[str, Any]:
    import torch

    from .ops import backends

    present = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return {
        op: {name: _told(partial(_backend, name, op, present)) for name in backends.BACKENDS}
        for op in backends.OPS
    }


def _backend(name: str, op: str, present: list[str]) -> dict[str, Any]:
    """Where a backend can run an op and is chosen; where not, and for which dtypes not, with the reasons."""
    import torch

    from .ops import arguments, backends, verdicts

    dtypes = (torch.int32,) if op == "sample_positions" else arguments.FLOATS
    implementation = None if name == backends.REFERENCE else backends.module(name)
    usable, without, reasons = [], {}, {}
    for kind in dict.fromkeys([*present, *getattr(implementation, "AUTOMATIC", ())]):
        asked = {dtype: backends.why_not(name, op, kind, dtype) for dtype in dtypes}
        refused = {str(dtype).removeprefix("torch."): reason for dtype, reason in asked.items() if reason}
        if len(refused) == len(dtypes):
            reasons[kind] = next(iter(refused.values()))
            continue
        usable.append(kind)
        if refused:
            without[kind] = refused
    avoided = {kind: verdicts.avoided(kind).get((op, name)) for kind in usable}
    return {
        "usable_on": usable,
        "chosen_on": [kind for kind in usable if _is_chosen(name, op, kind, dtypes[0])],
        "avoided_on": {kind: why for kind, why in avoided.items() if why},
        "without": without,
        "why_not": reasons,
    }


def _is_chosen(name: str, op: str, kind: str, dtype: Any) -> bool:
    from .ops import backends

    try:
        return backends.automatic(op, kind, dtype) == name
    except Exception:  # another backend is broken, which is told in its own line
        return False


def _decoders() -> dict[str, Any]:
    from .data.decoders import choice

    return {name: _told(partial(_decoder, name)) for name in choice.DECODERS}


def _decoder(name: str) -> dict[str, Any]:
    """Where a decoder can run and is chosen, or why not; in the form of `_backend`."""
    import torch

    from .data.decoders import choice

    present = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    reasons = {kind: choice.why_not(name, kind) for kind in present}
    usable = [kind for kind, reason in reasons.items() if reason is None]
    return {
        "usable_on": usable,
        "chosen_on": [kind for kind in usable if choice.automatic(kind) == name],
        "avoided_on": {},
        "without": {},
        "why_not": {kind: reason for kind, reason in reasons.items() if reason},
    }


def _rows(name: str, section: dict[str, Any]) -> dict[str, list[str]]:
    """The lines of each key of a section."""
    if name == "ops" and _BROKEN not in section:
        return {
            f"{op} / {backend}": _backend_rows(told)
            for op, each in section.items()
            for backend, told in each.items()
        }
    if name == "decoders" and _BROKEN not in section:
        return {decoder: _backend_rows(told) for decoder, told in section.items()}
    if name == "environment" and _BROKEN not in section:
        return {variable: [_variable_row(told)] for variable, told in section.items()}
    return {key: _value_rows(value) for key, value in section.items()}


def _value_rows(value: Any) -> list[str]:
    if isinstance(value, dict):
        if set(value) == {"built", "reason"}:
            return [f"{'built' if value['built'] else 'not built'}: {value['reason']}"]
        return [", ".join(f"{key} {inner}" for key, inner in value.items())]
    if isinstance(value, list):
        if any(isinstance(inner, dict) for inner in value):
            return [row for inner in value for row in _value_rows(inner)]
        return [" ".join(map(str, value)) or "none"]
    return ["none" if value is None else str(value)]


def _variable_row(told: dict[str, Any]) -> str:
    if told["problem"]:
        return f"wrong: {told['problem']}"
    default = f"default {told['default']!r}" if told["default"] else "no default"
    return f"not set, {default}" if told["value"] is None else f"{told['value']!r} ({default})"


def _backend_rows(told: dict[str, Any]) -> list[str]:
    if _BROKEN in told:
        return [f"broken: {told[_BROKEN]}"]
    rows = [
        f"usable on {kind}{', chosen automatically' if kind in told['chosen_on'] else ''}"
        for kind in told["usable_on"]
    ]
    if not rows:
        by_reason: dict[str, list[str]] = {}
        for kind, reason in told["why_not"].items():
            by_reason.setdefault(reason, []).append(kind)
        rows = [f"not usable on {' or '.join(kinds)}: {reason}" for reason, kinds in by_reason.items()]
    rows += [
        f"  on {kind} not for {dtype}: {reason}"
        for kind, refused in told["without"].items()
        for dtype, reason in refused.items()
    ]
    return rows + [f"  avoided on {kind}, selftest found: {why}" for kind, why in told["avoided_on"].items()]
