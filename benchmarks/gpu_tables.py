"""What a GPU's report holds beside rows: the build, the selftest, the tests, the search, and the goals."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import written
from stored import Report

GOALS = {
    "best": "best",
    "of_copy_bandwidth": "of copy bandwidth",
    "times_eager": "times eager",
    "times_compiled": "times compiled",
    "times_its_floor": "times its floor",
}


def goals(report: Report) -> list[str]:
    """What the project set itself for an H100, beside what was measured."""
    found = report.get("goals") or []
    lines = [
        [goal["case"], goal.get("pass", ""), *(_figure(goal.get(name)) for name in GOALS)] for goal in found
    ]
    return written.table(["case", "pass", *GOALS.values()], lines) if lines else []


def _figure(value: object) -> str:
    return "" if value is None else str(value)


def build(stage: dict) -> list[str]:
    """The record of the build."""
    record = stage.get("record") or {}
    lines = [[name, _said(value)] for name, value in record.items()]
    return written.table(["built", ""], lines) if lines else []


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(each)}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def selftest(stage: dict) -> list[str]:
    """Every backend against the reference."""
    lines = [
        [one["op"], one["backend"], f"{one['status']}: {one['detail']}"] for one in stage.get("results") or []
    ]
    return written.table(["op", "backend", "selftest"], lines) if lines else []


def tests(stage: dict) -> list[str]:
    """How many tests passed; the last lines of a failure stand under what failed."""
    return [f"{stage['outcome']}."] if stage.get("outcome") else []


def search(stage: dict) -> list[str]:
    """Which Triton configurations are the fastest here."""
    lines = [
        [one["kernel"], f"{one['variant']} {one['dtype']}", one["sizes"], one["fastest"], one["default"]]
        for one in stage.get("found") or []
    ]
    heads = ["Triton kernel", "variant", "sizes", "fastest here", "stored default"]
    return written.table(heads, lines) if lines else []


STAGES = {"build": build, "selftest": selftest, "tests": tests, "search": search}
