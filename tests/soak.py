"""Hours of training, watched from outside: does what it holds stay flat? `make soak`.

The tiny model is pre-trained on rendered scenes by the command that `make demo` uses, with an evaluation
every second epoch and a state every half minute, so that all that could leak is gone through often. Every few
seconds it is noted what its processes hold. Then each series is judged: flat is a slope below the bound of
`tests/flatness.py` after the first 15 % of the time; and nothing may be left in /dev/shm. Ctrl-C, or a kill
of either, and the same command goes on: the time counts on, and time without steps does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.flatness import judge  # noqa: E402
from tests.killing import LAUNCHER, free_port, workers_of  # noqa: E402
from tests.soak_page import said, write_page  # noqa: E402
from tests.watching import ActiveTime, last_record, left_behind, sample, shared_files, tree_of  # noqa: E402

PATIENCE = 300
SCRIPT = ROOT / "pixelbert_fast" / "train.py"

# No end of its own: it is told to stop when the time is over.
RECIPE = """
task: pretrain
output: {folder}/run
data:
  directory: {folder}/data
  build: {{name: scenes, images: 400, seed: 0, size: 48}}
  captions_per_image: 2
  max_text_length: 24
  short_side: 48
  long_side: 48
tokenizer: {{size: 300}}
model: {{preset: tiny}}
optimizer:
  backbone: {{algorithm: adamw, lr: 1e-4, weight_decay: 1e-2}}
  transformer: {{algorithm: adamw, lr: 1e-4, weight_decay: 1e-2}}
schedule: {{kind: constant, warmup_steps: 10}}
training: {{images_per_batch: 4, epochs: 1000000, threads: 1, log_every: 20, checkpoint_every_minutes: 0.5}}
evaluation: {{splits: [val], images: 16, every_epochs: 2}}
"""


class Soak:
    """What is kept in a folder of one soak, over all its sittings."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "run"
        self.log, self.series, self.about = folder / "log.txt", folder / "watch.jsonl", folder / "soak.json"
        new = {"sittings": 0, "pids": [], "before": sorted(shared_files()), "training": None, "end": None}
        self.state: dict[str, Any] = json.loads(self.about.read_text()) if self.about.is_file() else new

    def keep(self) -> None:
        beside = self.about.with_suffix(".partial")
        beside.write_text(json.dumps(self.state))
        beside.replace(self.about)

    def samples(self) -> list[dict[str, Any]]:
        """Every sample; a line that was cut is left out."""
        found = []
        for line in self.series.read_text().splitlines() if self.series.is_file() else []:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def counted(self) -> float:
        return max((one["seconds"] for one in self.samples()), default=0.0)


def start(soak: Soak, engine: str) -> psutil.Process:
    """Start a sitting of the training, or take over one whose watcher was killed."""
    if running := alive(soak):
        return running[0]
    import torch

    soak.folder.mkdir(parents=True, exist_ok=True)
    recipe = soak.folder / "soak.yaml"
    recipe.write_text(RECIPE.format(folder=soak.folder))
    line = [sys.executable]
    if engine == "deepspeed":
        line += [str(Path(sys.executable).parent / "deepspeed"), "--num_accelerators", "1"]
        line += ["--master_port", str(free_port())]
    line += [str(SCRIPT), "--config", str(recipe), "--resume", "auto"]
    variables = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
    variables |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    if engine == "deepspeed" and not torch.cuda.is_available():
        variables["DS_ACCELERATOR"] = "cpu"
    with open(soak.log, "a", encoding="utf-8") as out:
        # A session of its own, so that Ctrl-C reaches the watcher alone, which stops it in order.
        root = psutil.Popen(
            line, env=variables, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    soak.state["sittings"] += 1
    soak.state["training"] = [root.pid, root.create_time()]
    soak.state["end"] = None
    soak.keep()
    return root


def watch(soak: Soak, root: psutil.Process, seconds: float, every: float) -> bool:
    """Sample until so many seconds are counted; False where the training ends before."""
    clock = ActiveTime(soak.counted(), gap=max(4 * every, 20.0))
    told = time.monotonic()
    pids = set(soak.state["pids"])
    with open(soak.series, "a", encoding="utf-8") as out:
        while clock.seconds < seconds:
            processes = tree_of(root)
            if not processes:
                return False
            if new := {one.pid for one in processes} - pids:
                pids |= new
                soak.state["pids"] = sorted(pids)
                soak.keep()
            held = sample(processes, soak.run)
            record = last_record(soak.run / "log.jsonl")
            counted = clock.look(time.monotonic(), record.get("step", 0), held["stopped"] > 0)
            about = {"sitting": soak.state["sittings"], "step": record.get("step", 0), "counted": counted}
            about |= {"seconds": round(clock.seconds, 2), "time": round(time.time(), 1)}
            device = (record.get("memory") or {}).get("device_peak")
            held["device"] = None if device is None else int(device * 2**20)
            out.write(json.dumps(about | held) + "\n")
            out.flush()
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print(
                    f"{clock.seconds / 60:.1f} min, step {about['step']}: {held['anonymous'] / 2**20:.0f} MiB"
                    f" anonymous, {held['handles']} handles, {held['threads']} threads",
                    flush=True,
                )
            time.sleep(every)
    return True


def stop(soak: Soak, root: psutil.Process) -> dict[str, Any]:
    """Tell the training to stop as a user would, and say what it left."""
    processes = tree_of(root)
    for worker in workers_of(root, SCRIPT.name) or processes[:1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.terminate()
    still = outlasting(processes)
    # Of one that was taken over there is no status.
    status = root.poll() if isinstance(root, psutil.Popen) else stopped_by_word(soak.log)
    return {"status": status, "processes": len(still), "shm": left(soak)}


def outlasting(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are there after PATIENCE looks; a clock would count a pause of everything with them."""
    looks = 0
    while looks < PATIENCE and (processes := psutil.wait_procs(processes, timeout=1.0)[1]):
        held = False
        for one in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                held |= one.status() == psutil.STATUS_STOPPED
        looks += not held
    return processes


def stopped_by_word(log: Path) -> int | str:
    """0 where the log ends with the training's word that it stopped as told, else what is missing."""
    text = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    return 0 if "the same command goes on from there" in text else "no word of having stopped"


def left(soak: Soak) -> dict[str, int]:
    """What of this soak lies in /dev/shm; what other programs have there for a moment gets a while to go."""
    before, pids = set(soak.state["before"]), set(soak.state["pids"])
    found: dict[str, int] = {}
    for _ in range(20):
        if not (found := left_behind(before, pids)):
            break
        time.sleep(0.5)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120.0, help="of training, all sittings together")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("--engine", choices=("deepspeed", "plain"), default="deepspeed")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "soak")
    parser.add_argument("--again", action="store_true", help="forget what is there and begin anew")
    parser.add_argument("--report", action="store_true", help="write docs/results/soak.md and its picture")
    given = parser.parse_args()
    folder = given.folder.resolve()
    soak = Soak(folder)
    seconds = given.minutes * 60
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if given.again:
        if tree := alive(soak):
            print(f"a training of this soak still runs, process {tree[0].pid}; stop it first")
            return 2
        shutil.rmtree(folder, ignore_errors=True)
        soak = Soak(folder)
    over = soak.counted() >= seconds
    if over and soak.state["end"] is None and not alive(soak):
        soak.state["end"] = {"status": stopped_by_word(soak.log), "processes": 0, "shm": left(soak)}
        soak.keep()
    if (not over or soak.state["end"] is None) and (code := sitting(soak, seconds, given)):
        return code
    verdict = judge(soak.samples(), seconds, soak.state["end"])
    print("\n".join(said(verdict)))
    if given.report:
        write_page(soak.samples(), seconds, verdict, soak.state, _command(given))
    return 0 if verdict.flat else 1


def sitting(soak: Soak, seconds: float, given: argparse.Namespace) -> int:
    """Train and watch until the time is over; 0, or the status to exit with before it is."""
    if done := soak.counted():
        print(f"going on after {done / 60:.1f} minutes; --again begins anew", flush=True)
    root = start(soak, given.engine)
    print(f"training in process {root.pid}, its output in {soak.log}", flush=True)
    try:
        whole = watch(soak, root, seconds, given.every)
    except KeyboardInterrupt:
        stop(soak, root)
        print(f"interrupted after {soak.counted() / 60:.1f} minutes; the same command goes on from there")
        return 130
    if not whole:
        print(f"the training ended by itself; {soak.log} says why, and the same command goes on")
        return 1
    soak.state["end"] = stop(soak, root)
    soak.keep()
    return 0


def alive(soak: Soak) -> list[psutil.Process]:
    """The processes of the training that was started last."""
    pid, created = soak.state["training"] or (None, None)
    with contextlib.suppress(psutil.NoSuchProcess):
        if pid is not None and (found := psutil.Process(pid)).create_time() == created:
            return tree_of(found)
    return []


def _command(given: argparse.Namespace) -> str:
    standard = given.minutes == 120 and given.engine == "deepspeed"
    options = f"--minutes {given.minutes:g} --engine {given.engine} --report"
    return "make soak" if standard else f"python tests/soak.py {options}"


if __name__ == "__main__":
    sys.exit(main())
