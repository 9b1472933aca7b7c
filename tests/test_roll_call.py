"""When a process of a run dies, the others say which one, and end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.training import roll_call
from pixelbert_fast.training.ranks import PeerError
from pixelbert_fast.training.roll_call import RollCall, is_broken_connection
from tests.test_engine import environment, free_port, left_in_shared_memory, shared_memory

ROOT = Path(__file__).resolve().parents[1]
TOY = str(ROOT / "tests" / "training_task.py")
BROKEN = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer")


class Store:
    """A `TCPStore` of one process: `multi_get` waits for its keys; it may be gone, and it may hang."""

    def __init__(self):
        self.values, self.gone, self.open = {}, False, threading.Event()
        self.open.set()

    def set(self, key, value):
        self.multi_get([])
        self.values[key] = value.encode()

    def multi_get(self, keys):
        self.open.wait(10)
        while not self.gone and any(key not in self.values for key in keys):
            time.sleep(0.001)
        if self.gone:
            raise RuntimeError("Connection reset by peer")
        return [self.values[key] for key in keys]


@pytest.fixture
def call(monkeypatch):
    """call(world, ...) -> the roll calls of so many processes, in as many threads."""
    monkeypatch.setattr(roll_call, "_end_later", lambda status: None)
    monkeypatch.setattr(roll_call.atexit, "register", lambda work: None)
    monkeypatch.setattr(roll_call.signal, "signal", lambda number, handler: None)
    made = []

    def make(world, store=None, **options):
        store = store or Store()
        rolls = [None] * world

        def join(rank):
            options.setdefault("silence", 60.0)
            rolls[rank] = RollCall(store, rank, world, f"machine {rank}", interval=0.05, **options)

        threads = [threading.Thread(target=join, args=(rank,)) for rank in range(world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        made.extend(rolls)
        return rolls

    yield make
    for roll in made:
        roll.stop()


def die(roll):
    roll._done.set()  # its thread is gone and has said nothing
    roll._thread.join(10)


def test_the_first_one_left_names_the_dead(call):
    rolls = call(4)
    die(rolls[0])
    die(rolls[2])
    told = rolls[1].explained(BROKEN)
    assert isinstance(told, RunError)
    assert "processes 0 (machine 0), 2 (machine 2) of 4 died" in str(told)
    # The first has left by now, and is not taken for dead.
    other = rolls[3].explained(BROKEN)
    assert isinstance(other, PeerError)
    assert other.status == 1


def test_an_error_is_told_once_and_its_status_is_everybodys(call):
    rolls = call(3)
    mistake = UserError("a mistake")
    assert rolls[1].explained(mistake) is mistake
    for rank in (0, 2):
        told = rolls[rank].explained(BROKEN)
        assert isinstance(told, PeerError)
        assert told.status == 2


def test_what_all_meet_is_told_by_the_first_of_them(call):
    rolls = call(4)
    told = [rolls[rank].explained(UserError("a mistake")) for rank in range(3)]
    assert isinstance(told[0], UserError)
    assert [(type(one), one.status) for one in told[1:]] == [(PeerError, 2)] * 2
    own = UserError("another mistake")
    assert rolls[3].explained(own) is own


def test_a_process_looks_for_its_error_elsewhere_before_its_own_last_word_lets_the_store_go(
    call, monkeypatch
):
    store, words = Store(), []

    def looked(self, text):
        words.append(store.values["word/1"])
        return False

    monkeypatch.setattr(RollCall, "_told_before", looked)
    rolls = call(2, store)
    rolls[1].explained(UserError("a mistake"))
    assert len(words) == 1 and not words[0].startswith(b"left")
    assert store.values["word/1"].startswith(b"left 2 ")
    # Who learnt of it from another has nothing to look for.
    rolls[0].explained(PeerError(2))
    assert len(words) == 1


def test_the_store_dies_with_the_first_process(call):
    store = Store()
    rolls = call(3, store)
    die(rolls[0])
    store.gone = True
    assert "process 0 (machine 0) of 3 died" in str(rolls[1].explained(BROKEN))
    assert isinstance(rolls[2].explained(BROKEN), PeerError)


def test_the_first_process_failing_is_no_death_though_the_store_goes_with_it(call):
    store = Store()
    rolls = call(2, store)
    rolls[0].explained(RunError("what happened"))
    time.sleep(0.3)
    store.gone = True
    told = rolls[1].explained(BROKEN)
    assert isinstance(told, PeerError)
    assert told.status == 1


def test_a_broken_connection_between_the_living_is_said_to_be_one(call):
    rolls = call(2)
    assert "all of them are still there" in str(rolls[0].explained(BROKEN))


def test_a_silent_process_is_given_up_when_no_connection_breaks(call):
    ended = []
    rolls = call(2, silence=0.4, end=ended.append)
    time.sleep(1.0)
    assert not ended
    die(rolls[1])
    for _ in range(100):
        time.sleep(0.05)
        if ended:
            break
    assert len(ended) == 1
    assert "process 1 (machine 1) of 2 died" in ended[0]


def test_all_stopped_together_go_on_together(call):
    ended, store = [], Store()
    call(2, store, silence=0.4, end=ended.append)
    store.open.clear()
    time.sleep(1.2)
    store.open.set()
    time.sleep(0.5)
    assert not ended


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (BROKEN, True),
        (RuntimeError("Broken pipe"), True),
        (RuntimeError("NCCL communicator was aborted on rank 1"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (ValueError("connection closed by peer"), False),
        (KeyboardInterrupt(), False),
        (UserError("no such file"), False),
    ],
)
def test_which_errors_come_from_another_process(error, broken):
    assert is_broken_connection(error) is broken
    told = RunError("told anew")
    told.__cause__ = error
    assert is_broken_connection(told) is broken


RECIPE = """
training: {steps: 100000, images_per_batch: 4, log_every: 5, prefetch: 0, checkpoint_every_minutes: 0.02}
evaluation: {splits: [val]}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(RECIPE)
    return path


def started(command, recipe, tmp_path, **variables):
    return subprocess.Popen(
        [
            *command,
            str(ROOT / "tests" / "training_task.py"),
            "--config",
            str(recipe),
            f"output={tmp_path / 'run'}",
        ],
        env=environment(PYTHONPATH=ROOT, **variables),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the signals of a terminal can be sent to it alone
    )


def wait_for(condition, seconds=120):
    for _ in range(seconds * 5):
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError("it did not happen")


@pytest.mark.parametrize("victim", [0, 2])
def test_one_killed_and_the_others_end_within_a_minute_and_say_which(tmp_path, recipe, victim):
    before, world = shared_memory(), 3
    common = {
        "WORLD_SIZE": world,
        "LOCAL_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    processes = [
        started([sys.executable], recipe, tmp_path, RANK=rank, LOCAL_RANK=rank, **common)
        for rank in range(world)
    ]
    try:
        wait_for(lambda: list((tmp_path / "run" / "resume").glob("step-*/state.json")))
        processes[victim].kill()
        errors = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [-9 if r == victim else 1 for r in range(world)]
    said = [line for text in errors for line in re.split(r"[\r\n]", text) if "died without a word" in line]
    assert len(said) == 1, errors
    assert f"process {victim} (process id {processes[victim].pid} on " in said[0]
    assert "Traceback" not in "".join(errors)
    assert not left_in_shared_memory(before)


@pytest.mark.skipif(sys.platform != "linux", reason="a process's ancestors are looked for in /proc")
@pytest.mark.parametrize("how", ["the launcher is told to end", "Ctrl-C"])
def test_however_the_run_is_ended_it_saves_and_leaves_nothing(tmp_path, recipe, how):
    """DeepSpeed's first process dies of a SIGTERM and tells nobody; a terminal's Ctrl-C reaches all."""
    program = Path(sys.executable).parent / "deepspeed"
    before = shared_memory()
    launcher = [sys.executable, str(program), "--num_accelerators", "2", "--master_port", str(free_port())]
    process = started(launcher, recipe, tmp_path)
    try:
        wait_for(lambda: list((tmp_path / "run" / "resume").glob("step-*/state.json")))
        if how == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)  # its error stream is the run's: it ends when all have
    finally:
        process.kill()
    assert "the same command goes on from there" in errors
    assert not [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_of(pid, tmp_path)]
    assert not left_in_shared_memory(before)


def _is_of(pid, folder):
    try:
        return str(folder) in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
