"""The verdict on a long run's series, the watcher, and the page; `make soak` is the long version of this."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import textwrap
from xml.etree import ElementTree

import psutil
import pytest

from tests.flatness import MIB, judge
from tests.soak_page import page, picture, said
from tests.watching import SHARED_MEMORY, ActiveTime, left_behind, sample, shared_files, sizes, tree_of

HOUR = 3600.0
ENDED = {"status": 0, "processes": 0, "shm": {}}


def looks(seconds=2 * HOUR, sitting=1, start=0.0, **series):
    """Samples every 10 s; a series is a function of the hours in its sitting."""
    draw = random.Random(0)
    flat = {"rss": 900 * MIB, "pss": 700 * MIB, "handles": 60, "threads": 20, "processes": 3,
            "shm_files": 0, "shm_bytes": 0, "states": 30 * MIB, "records": 0}  # fmt: skip
    found = []
    for number in range(int(seconds // 10) + 1):
        hours = number * 10 / HOUR
        one = {"sitting": sitting, "seconds": start + number * 10.0, "counted": True, "time": number * 10.0}
        one |= flat | {"step": number * 50, "anonymous": (400 + draw.uniform(-8, 8)) * MIB, "device": None}
        found.append(one | {name: of(hours, draw) for name, of in series.items()})
    return found


def test_flat_and_noisy_passes():
    verdict = judge(looks(), 2 * HOUR, ENDED)
    assert verdict.flat, verdict.reasons
    assert verdict.hours == pytest.approx(1.7, abs=0.01)


@pytest.mark.parametrize(
    ("name", "of", "word"),
    [
        ("anonymous", lambda h, draw: (400 + 30 * h + draw.uniform(-8, 8)) * MIB, "anonymous memory"),
        ("rss", lambda h, draw: (900 + 200 * max(h - 1.0, 0)) * MIB, "RSS"),
        ("handles", lambda h, draw: 60 + int(h * 12), "open file handles"),
        ("threads", lambda h, draw: 20 + int(h * 6) * 2, "threads"),
        ("shm_bytes", lambda h, draw: int(3 * h) * 5 * MIB, "shared memory"),
    ],
)
def test_what_grows_is_told(name, of, word):
    verdict = judge(looks(**{name: of}), 2 * HOUR, ENDED)
    assert [reason.startswith(word) for reason in verdict.reasons] == [True], verdict.reasons


def test_growth_in_the_warm_up_and_a_sawtooth_of_states_pass():
    def sawtooth(hours, draw):
        return (400 + 300 * min(hours, 0.25) + 120 * (hours * 40 % 1.0)) * MIB

    def pulses(hours, draw):
        return 60 + (4 if hours * 12 % 1.0 < 0.2 else 0)

    verdict = judge(looks(anonymous=sawtooth, handles=pulses, states=sawtooth), 2 * HOUR, ENDED)
    assert verdict.flat, verdict.reasons


def test_another_level_of_a_later_sitting_is_no_growth_and_its_warm_up_is_left_out():
    first = looks(HOUR)
    second = looks(1.5 * HOUR, 2, HOUR, anonymous=lambda h, draw: (500 + 400 * min(h, 0.25)) * MIB)
    verdict = judge(first + second, 2 * HOUR, ENDED)
    assert verdict.flat, verdict.reasons


def test_looks_in_a_pause_are_not_judged():
    samples = looks()
    for one in samples[300:500]:
        one |= {"counted": False, "anonymous": 4000 * MIB}
    assert judge(samples, 2 * HOUR, ENDED).flat


@pytest.mark.parametrize(
    ("end", "word"),
    [
        ({"shm": {"torch_1": 4096}}, "4096 bytes are left in /dev/shm (torch_1)"),
        ({"processes": 2}, "2 processes still run"),
        ({"status": -9}, "the training ended with -9"),
    ],
)
def test_what_is_left_behind_is_told(end, word):
    assert judge(looks(), 2 * HOUR, ENDED | end).reasons == [word]


def test_a_run_that_was_too_short_is_told():
    reasons = judge(looks(HOUR), 2 * HOUR, ENDED).reasons
    assert reasons == [
        "60.0 of 120 minutes were trained",
        "only 42.0 minutes lie after the warm-up of a sitting",
    ]


def test_only_time_in_which_steps_are_made_counts():
    clock = ActiveTime(100.0, gap=20.0, stall=30.0)
    assert not clock.look(0.0, 7, False)  # nothing is known of what was before
    assert not clock.look(5.0, 7, False)  # an old step, of an earlier sitting
    assert clock.look(10.0, 8, False)
    assert clock.look(25.0, 8, False)
    assert not clock.look(30.0, 8, True)  # stopped
    assert not clock.look(400.0, 8, False)  # the watcher was
    assert clock.look(405.0, 8, False)
    assert not clock.look(420.0, 8, False)  # 35 s without a step
    assert clock.look(425.0, 9, False)
    assert clock.seconds == 130.0


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="there is no /dev/shm")
def test_the_watcher_sees_what_a_process_and_its_child_hold_and_leave(tmp_path):
    deeds = """
        import mmap, os, subprocess, sys, threading
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], **pipes)
        child.stdout.readline()  # what starting opens and closes is over
        print(flush=True); input()
        held = bytearray(b"x") * (64 << 20)
        files = [open(os.devnull) for _ in range(30)]
        threads = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(5)]
        [thread.start() for thread in threads]
        shared = open(f"/dev/shm/torch_{os.getpid()}_watched", "w+b"); shared.truncate(1 << 20)
        mapped = mmap.mmap(shared.fileno(), 1 << 20)
        print(flush=True); input()
        child.kill(); child.wait()
    """
    before = set(shared_files())
    (tmp_path / "log.jsonl").write_text("0123")
    (tmp_path / "resume").mkdir()
    (tmp_path / "resume" / "state").write_text("01234")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with psutil.Popen([sys.executable, "-c", textwrap.dedent(deeds)], **pipes) as process:
        try:
            process.stdout.readline()
            first = sample(tree_of(process), tmp_path)
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
            tree = tree_of(process)
            second = sample(tree, tmp_path)
            assert not left_behind(before, {process.pid})  # it is held
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.wait(timeout=60) == 0
            assert tree_of(process) == []
            left = left_behind(before, {one.pid for one in tree})
            assert left == {f"torch_{process.pid}_watched": 1 << 20}
            assert f"torch_{process.pid}_watched" not in left_behind(before, {1})  # another process's
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
            (SHARED_MEMORY / f"torch_{process.pid}_watched").unlink(missing_ok=True)
    more = {name: second[name] - first[name] for name in first}
    assert (first["processes"], more["processes"]) == (2, 0)
    # Of 64 MiB, all of it is touched; a little more for the threads, and for what else came to be loaded.
    for name in ("anonymous", "rss", "pss"):
        assert 64 << 20 <= more[name] < 96 << 20, name
    assert (more["handles"], more["threads"]) == (31 + 1, 5)  # a mapping keeps a handle of its own
    assert (first["shm_files"], second["shm_files"], second["shm_bytes"]) == (0, 1, 1 << 20)
    assert (first["records"], first["states"]) == sizes(tmp_path) == (4, 5)


def test_the_page_says_what_was_found_and_the_picture_is_small():
    samples = looks(records=lambda h, draw: h * 5 * MIB)
    verdict = judge(samples, 2 * HOUR, ENDED)
    text = "\n".join(page(samples, 2 * HOUR, verdict, {"end": ENDED}, "make soak"))
    assert "36,000 steps in 2.00 hours, in 1 sitting(s)" in text and "0 files in /dev/shm" in text
    grown = judge(looks(handles=lambda h, draw: 60 + int(h * 12)), 2 * HOUR, ENDED)
    assert "NOT flat: open file handles grows by 12 an hour; the bound is 2" in said(grown)[-1]
    drawn = picture(samples, 2 * HOUR, verdict)
    assert len(drawn.encode()) < 60_000
    texts = [
        node.text or "" for node in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert {line.series.title for line in verdict.lines} <= {text.partition(",")[0] for text in texts} | set(
        texts
    )
