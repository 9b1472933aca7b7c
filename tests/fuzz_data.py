"""Gives the processor, the builders and all that reads files what no one would, and judges each outcome.

    python -m tests.fuzz_data [--cases 10000] [--seed 0] [--only TARGET] [--report]

Right is that it works, and then what comes of it is checked, or one sentence of `errors.UserError`: no other
error, no half set left as if it were whole, no entry lost without a word, and nothing that takes over 20 s.
Anything else ends the run with the smallest case that shows it. Cases come in batches, a target each in turn,
each from a seed of its own; an interrupted run goes on after its last whole batch, and `--again` begins anew.
`--report` writes docs/results/fuzz-data.md.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import hypothesis
import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from tests import fuzzed_folders, fuzzed_inputs, fuzzed_sets, fuzzed_texts
from tests.fuzz_batches import judged_batch
from tests.fuzzed_cases import WORKED, Target, judged

ROOT = Path(__file__).resolve().parent.parent
BATCH = 100
REPORT = ROOT / "docs" / "results" / "fuzz-data.md"
STATES = ROOT / "build"
FINDINGS = Path(__file__).with_name("fuzz_data_findings.md")


def all_targets(root: Path) -> list[Target]:
    """Every target; what they read lies below `root`."""
    vocabularies = st.tuples(
        st.lists(fuzzed_inputs.any_text, max_size=6), st.sampled_from([0, 6, 40, 120, 1000])
    )
    return [
        Target(
            "call the processor", "texts, pictures and options", fuzzed_inputs.calls, fuzzed_inputs.judge_call
        ),
        Target(
            "decode an image", "an encoded file",
            fuzzed_inputs.st.sampled_from(fuzzed_inputs.ENCODED).flatmap(fuzzed_inputs.mutated_file),
            fuzzed_inputs.judge_file,
        ),
        Target("train a vocabulary", "texts and a size", vocabularies, fuzzed_inputs.judge_vocabulary),
        *fuzzed_texts.TARGETS,
        *fuzzed_sets.targets(root),
        *fuzzed_folders.targets(root),
    ]  # fmt: skip


def run_batch(target: Target, seed: int, examples: int, root: Path) -> Counter[str]:
    """Judge `examples` cases drawn from `seed`, each in a folder of its own below `root`; outcomes counted.

    Raises:
        Whatever the target raised on the smallest case that was found wrong.
    """

    def judge(case: Any) -> str:
        folder = Path(tempfile.mkdtemp(dir=root, prefix="case-"))
        try:
            return f"{target.name}: {judged(target, case, folder)}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow and NumPy about what they are given
        return judged_batch(target.cases, judge, seed=seed, examples=examples)


def quietly_offline() -> None:
    """Nothing of this is asked of a hub, and what others log of broken files is not wanted."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    datasets.disable_progress_bars()
    logging.disable(logging.ERROR)
    logging.raiseExceptions = False
    faulthandler.enable()
    torch.set_num_threads(1)


def chosen(targets: Sequence[Target], only: str | None) -> list[Target]:
    return [target for target in targets if only is None or only in target.name]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first batch; the next have the next")
    parser.add_argument("--only", help="targets whose name holds this")
    parser.add_argument("--again", action="store_true", help="forget an interrupted run")
    parser.add_argument("--report", action="store_true", help=f"write {REPORT.relative_to(ROOT)}")
    options = parser.parse_args()
    quietly_offline()
    root = Path(tempfile.mkdtemp(prefix="fuzz-data-"))
    os.environ["HF_DATASETS_CACHE"] = str(root / "cache")
    try:
        return fuzz(options, root)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after its last whole batch")
        return 130
    finally:
        shutil.rmtree(root, ignore_errors=True)


def fuzz(options: argparse.Namespace, root: Path) -> int:
    """Run the batches that are left."""
    targets = chosen(all_targets(root), options.only)
    state_file = STATES / f"fuzz-data-{options.seed}{'-' + options.only if options.only else ''}.json"
    state: dict[str, Any] = {"batches": 0, "seconds": 0.0, "counted": {}}
    if state_file.is_file() and not options.again:
        state = json.loads(state_file.read_text(encoding="utf-8"))
        print(f"going on after {state['batches']} batches; --again begins anew", flush=True)
    counted = Counter(state["counted"])
    for number in range(state["batches"], -(-options.cases // BATCH)):
        target, start = targets[number % len(targets)], time.monotonic()
        found = run_batch(target, options.seed + number, BATCH, root)
        counted += found
        state |= {"batches": number + 1, "seconds": state["seconds"] + time.monotonic() - start}
        state_file.parent.mkdir(exist_ok=True)
        beside = state_file.with_suffix(".new")
        beside.write_text(json.dumps(state | {"counted": dict(counted)}), encoding="utf-8")
        beside.replace(state_file)  # a kill leaves the old one or the new one
        told = ", ".join(f"{name.partition(': ')[2]} {times}" for name, times in found.items())
        seconds = f"{time.monotonic() - start:.0f} of {state['seconds']:.0f} s"
        print(
            f"{counted.total()} cases, seed {options.seed + number}, {target.name}: {told}; {seconds}",
            flush=True,
        )
    lines = summary(counted, state, options.seed, targets)
    print("\n".join(lines))
    if options.report:
        page = ["# Random inputs of the processor, the builders and the readers", "", *lines, ""]
        REPORT.write_text("\n".join(page) + FINDINGS.read_text(encoding="utf-8"), encoding="utf-8")
    return 0


def summary(counted: Counter[str], state: dict, seed: int, targets: Sequence[Target]) -> list[str]:
    """The outcomes as a table, with what they came from."""
    last = seed + state["batches"] - 1
    lines = [
        f"{counted.total():,} cases by `make fuzz-data`, seeds {seed} to {last}, in {state['seconds']:.0f}"
        " s.",
        "Each ended in a result that was checked, or in one sentence that tells the user what is wrong:",
        "in no other error, in no half set left as if it were whole, in no entry lost without a word,",
        "and within 20 s.",
        "",
        "| what is done | what is mutated or drawn | cases | worked | user's error |",
        "|---|---|---:|---:|---:|",
    ]
    for target in targets:
        worked, refused = (counted[f"{target.name}: {one}"] for one in (WORKED, "UserError"))
        lines.append(f"| {target.name} | {target.what} | {worked + refused:,} | {worked:,} | {refused:,} |")
    return [
        *lines,
        "",
        f"Python {platform.python_version()}, torch {torch.__version__}, hypothesis {hypothesis.__version__},"
        f" Pillow {Image.__version__}, NumPy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores.",
    ]


if __name__ == "__main__":
    sys.exit(main())
