"""Runs killed at random moments and resumed: are they, bit for bit, the run nobody killed? `make kill-test`.

Three runs of a tiny pre-training on 320 scenes: 60 steps by one process of plain PyTorch and 60 by two of
DeepSpeed with ZeRO 2, each killed with SIGKILL at 20 moments, some of them while a state is written; and an
epoch by one process, then two, then one. Each is compared with a run that nobody stopped: every tensor of the
final checkpoint, and the samples of every batch of every process.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.killing import Command, Epoch, Outcome, changing_processes, killed_run  # noqa: E402

RESULTS = ROOT / "docs" / "results" / "training-kills.md"
STEPS = 60

# Small, so that most of a sitting is its start. A state is saved after every step.
RECIPE = """
task: pretrain
data:
  directory: {data}
  build: {{name: scenes, images: 400, seed: 0, size: 48}}
  captions_per_image: 2
  max_text_length: 24
  short_side: 48
  long_side: 48
tokenizer: {{size: 300}}
model: {{preset: tiny}}
optimizer:
  backbone: {{algorithm: adamw, lr: 1e-3, weight_decay: 1e-2}}
  transformer: {{algorithm: adamw, lr: 1e-3, weight_decay: 1e-2}}
schedule: {{kind: cosine, warmup_steps: 10}}
training: {{images_per_batch: 4, log_every: 5, checkpoint_every_minutes: 1e-9, log_samples: true, {length}}}
evaluation: {{splits: [val], images: 8}}
"""


def _runs(folder: Path, kills: int, seed: int, only: Sequence[str]) -> Iterator[Outcome | Epoch]:
    script = ROOT / "pixelbert_fast" / "train.py"
    recipes = {}
    for length in (f"steps: {STEPS}", "epochs: 1"):
        recipes[length] = folder / f"{length.partition(':')[0]}.yaml"
        recipes[length].write_text(RECIPE.format(data=folder / "scenes", length=length))

    def command(out: Path, length: str, *more: str, processes: int = 1) -> Command:
        arguments = ("--config", str(recipes[length]), f"output={out}", "--resume", "auto", *more)
        return Command(script, *arguments, processes=processes)

    steps = f"steps: {STEPS}"
    if "plain" in only:

        def alone(out: Path, *more: str) -> Command:
            return command(out, steps, *more)

        yield killed_run("plain, 1 process", alone, folder / "plain", STEPS, kills, seed)
    if "zero2" in only:

        def pair(out: Path, *more: str) -> Command:
            return command(out, steps, "training.zero_stage=2", *more, processes=2)

        yield killed_run("ZeRO 2, 2 processes", pair, folder / "zero2", STEPS, kills, seed + 1)
    if "worlds" in only:
        make = lambda out, processes: command(out, "epochs: 1", processes=processes)  # noqa: E731
        yield changing_processes(make, folder / "worlds", seed + 2)


def _lines(result: Outcome | Epoch) -> list[str]:
    if isinstance(result, Epoch):
        return [
            f"1 -> 2 -> 1 processes: {'; '.join(result.sittings)}. Of the {result.samples} samples of the"
            f" epoch {result.repeated} were seen twice and {result.lost} not at all ({result.seconds:.0f} s)."
        ]
    writing = sum(moment.writing for moment in result.moments)
    at = ", ".join(f"{one.step}{'w' if one.writing else ''}" for one in result.moments)
    alike = result.tensors - len(result.other_tensors)
    samples = "NOT all" if result.other_steps else "all"
    return [
        f"| {result.name} | {len(result.moments)} | {writing} | {alike} of {result.tensors} | {samples} of"
        f" {result.steps} | {result.seconds:.0f} s |",
        f"{result.name}, steps: {at}",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=["plain", "zero2", "worlds"])
    parser.add_argument("--report", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-runs-") as folder:
        results = []
        for result in _runs(Path(folder), given.kills, given.seed, given.only):
            results.append(result)
            print("\n".join(_lines(result)), flush=True)
    wrong = [one for one in results if (one.repeated or one.lost if isinstance(one, Epoch) else not one.same)]
    if given.report:
        _report(results)
    return 1 if wrong else 0


def _report(results: list[Outcome | Epoch]) -> None:
    from pixelbert_fast.training.provenance import versions

    made = versions()
    lines = [_lines(one) for one in results]
    rows = [both[0] for one, both in zip(results, lines, strict=True) if isinstance(one, Outcome)]
    rest = [both[-1] for both in lines]
    head = [
        "# Runs killed at random moments and resumed",
        "",
        f"`make kill-test`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores of {_processor()}; Python"
        f" {made['python']}, torch {made['torch']}, DeepSpeed {made['deepspeed']}. `tests/kill_runs.py` says"
        " what is done. A `w` marks the kills that came while a state was written.",
        "",
        "| run | kills | `w` | final tensors bit-identical | batches with the same samples | time |",
        "|---|---|---|---|---|---|",
    ]
    RESULTS.write_text("\n".join([*head, *rows, "", *(f"- {line}" for line in rest), ""]), encoding="utf-8")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
