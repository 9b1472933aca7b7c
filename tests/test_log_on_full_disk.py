"""A run's log where nothing more can be written: the run outlasts it."""

from __future__ import annotations

import json
import resource
import time

import pytest

from pixelbert_fast.training.logs import RunLog


# TensorBoard's thread ends by the error that it meets, and no traceback is to be seen of that.
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_log_that_cannot_be_written_does_not_end_the_run(tmp_path, capsys):
    log = RunLog(tmp_path, writes=True)
    log.write("train", 1, {"loss": 1.0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Of everything the log writes, TensorBoard's file included, nothing may grow any more.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        for step in range(2, 2000):
            log.write("train", step, {"loss": 1.0})
        time.sleep(0.1)  # TensorBoard writes in a thread
        log.write("train", 2000, {"loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.write("train", 2001, {"loss": 2.0})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines() if line]
    assert [line["step"] for line in lines] == [1, 2001]
    said = capsys.readouterr().err
    assert said.count("log.jsonl are lost: File too large") == 1
    assert said.count("TensorBoard shows nothing after step") == 1


def test_what_a_killed_run_left_is_cut_when_it_goes_on(tmp_path):
    log = RunLog(tmp_path, writes=True)
    for step in (1, 2, 3):
        log.write("train", step, {"loss": float(step)})
    log.close()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"kind": "tr')
    log = RunLog(tmp_path, writes=True, resumed_step=2)
    log.write("train", 3, {"loss": 4.0})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 4.0)]
    log = RunLog(tmp_path, writes=True)  # a new run
    log.close()
    assert (tmp_path / "log.jsonl").read_text() == ""
