"""A run over two machines, as far as one machine can be two: network namespaces joined by a cable."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.test_engine import environment, free_port
from tests.test_roll_call import TOY, wait_for

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests" / "two_hosts.sh"
RECIPE = """
training: {steps: %d, images_per_batch: 4, log_every: 2, prefetch: 0, checkpoint_every_minutes: 0.02}
evaluation: {splits: [val]}
"""


def _why_not() -> str:
    if not (shutil.which("unshare") and shutil.which("ip") and shutil.which("nsenter")):
        return "unshare, nsenter and ip are not all here"
    tried = subprocess.run(
        ["unshare", "--map-root-user", "--net", "ip", "link", "add", "c0", "type", "veth", "peer", "c1"],
        capture_output=True,
        text=True,
    )
    return tried.stderr.strip().splitlines()[-1] if tried.returncode and tried.stderr.strip() else ""


pytestmark = pytest.mark.skipif(bool(_why_not()), reason=f"no namespaces: {_why_not()}")


def hosts(tmp_path, steps):
    """A run started on both, as docs/multi-node.md says: DeepSpeed's launcher on each, without ssh."""
    (tmp_path / "hostfile").write_text("10.77.0.1 slots=1\n10.77.0.2 slots=1\n")
    (tmp_path / "toy.yaml").write_text(RECIPE % steps)
    program = [sys.executable, str(Path(sys.executable).parent / "deepspeed")]
    where = ["--hostfile", str(tmp_path / "hostfile"), "--no_ssh", "--node_rank", "%N"]
    master = ["--master_addr", "10.77.0.1", "--master_port", "29577"]
    run = [TOY, "--config", str(tmp_path / "toy.yaml"), f"output={tmp_path / 'run'}"]
    return subprocess.Popen(
        ["bash", str(SCRIPT), str(tmp_path), *program, *where, *master, *run],
        env=environment(PYTHONPATH=ROOT),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def outputs(tmp_path):
    return [(tmp_path / f"host-{host}.out").read_text() for host in (0, 1)]


def test_two_hosts_compute_what_two_processes_of_one_do(tmp_path):
    over_two = hosts(tmp_path, 6)
    try:
        said, _ = over_two.communicate(timeout=150)
    finally:
        over_two.kill()
    assert said.split() == ["host", "0:", "0", "host", "1:", "0"], outputs(tmp_path)

    common = {"WORLD_SIZE": 2, "LOCAL_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = [sys.executable, TOY, "--config", str(tmp_path / "toy.yaml"), f"output={tmp_path / 'one'}"]
    processes = [
        subprocess.Popen(
            command,
            env=environment(RANK=rank, LOCAL_RANK=rank, PYTHONPATH=ROOT, **common),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=150) for process in processes] == [0, 0]
    two, one = (
        torch.load(tmp_path / name / "checkpoint" / "model.pt", weights_only=True) for name in ("run", "one")
    )
    assert two.keys() == one.keys()
    assert all(torch.equal(two[name], one[name]) for name in two)


@pytest.mark.slow
def test_when_a_process_of_one_host_dies_both_end_and_say_which(tmp_path):
    over_two = hosts(tmp_path, 100_000)
    try:
        wait_for(lambda: list((tmp_path / "run" / "resume").glob("step-*/state.json")))
        pid = int(re.search(r"process (\d+) spawned", outputs(tmp_path)[1])[1])
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        said, _ = over_two.communicate(timeout=90)
    finally:
        over_two.kill()
    assert time.monotonic() - began < 60
    statuses = said.split()
    assert "0" not in (statuses[2], statuses[5])
    first, _ = outputs(tmp_path)
    assert f"process 1 (process id {pid} on " in first
