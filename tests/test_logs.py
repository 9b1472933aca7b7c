"""Where a run's records go, and what its bar looks like."""

from __future__ import annotations

import io
import json
import os
import sys
import types

import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.training import logs
from pixelbert_fast.training.config import WandbConfig
from pixelbert_fast.training.logs import RunLog, bar, check_wandb


class FakeWandb(types.ModuleType):
    """What is asked of wandb, and what it answers; `reachable` False: there is no network."""

    def __init__(self, reachable=True):
        super().__init__("wandb")
        self.reachable, self.asked, self.logged, self.finished = reachable, [], [], 0
        self.id = "abc123"

    def init(self, **asked):
        self.asked.append(asked)
        if asked["mode"] == "online" and not self.reachable:
            raise ConnectionError("no route\nto host")
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_what_is_not_finite_is_null_in_json_and_nowhere_else(tmp_path, wandb):
    log = RunLog(tmp_path, writes=True, wandb=WandbConfig(project="p"))
    log.write("train", 3, {"loss": float("nan"), "lr": {"a": 0.5, "b": float("inf")}, "epoch": 1})
    log.close()
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "kind": "train",
        "step": 3,
        "loss": None,
        "lr": {"a": 0.5, "b": None},
        "epoch": 1,
    }
    assert wandb.logged == [(3, {"train/lr/a": 0.5, "train/epoch": 1.0})]
    assert wandb.finished == 1


def test_wandb_gets_the_configuration_and_goes_on_with_the_same_run(tmp_path, wandb):
    options = WandbConfig(project="pixels", entity="us")
    RunLog(tmp_path / "run7", writes=True, wandb=options, described={"seed": 1}).close()
    (asked,) = wandb.asked
    assert (asked["project"], asked["entity"], asked["name"]) == ("pixels", "us", "run7")
    assert (asked["config"], asked["mode"], asked["id"]) == ({"seed": 1}, "online", None)
    RunLog(tmp_path / "run7", writes=True, resumed_step=5, wandb=options).close()
    assert wandb.asked[1]["id"] == "abc123"
    # The other processes have no part in it.
    RunLog(tmp_path / "run7", writes=False, wandb=options).close()
    assert len(wandb.asked) == 2


def test_without_a_network_wandbs_files_are_written_for_later(tmp_path, monkeypatch, capsys):
    fake = FakeWandb(reachable=False)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    log = RunLog(tmp_path, writes=True, wandb=WandbConfig(project="p"))
    log.write("train", 1, {"loss": 1.0})
    log.close()
    assert [asked["mode"] for asked in fake.asked] == ["online", "offline"]
    assert fake.logged == [(1, {"train/loss": 1.0})]
    assert "wandb cannot be reached (no route to host): its files go to" in capsys.readouterr().err


def test_a_missing_wandb_is_a_sentence_before_anything_is_done(monkeypatch):
    monkeypatch.setattr(logs.importlib.util, "find_spec", lambda name: None)
    check_wandb(None)
    with pytest.raises(UserError, match=r"^logging\.wandb is given and wandb is not installed; pip install"):
        check_wandb(WandbConfig(project="p"))


def lines_of(monkeypatch, columns, title, total, done, parts):
    """What a terminal of so many columns shows."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(logs.shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    with bar(title, total, done) as progress:
        progress.dynamic_ncols = None
        progress.ncols = columns
        progress.start_t -= 3 * done  # three seconds a step so far
        progress.update(100)
        progress.say(parts)
        progress.refresh()
    return terminal.getvalue().replace("\n", "\r").split("\r")


ALL = ["loss 3.214", "waiting for data 30 %", "1045 pairs/s"]


def test_at_80_columns_a_long_runs_bar_keeps_what_matters_most(monkeypatch):
    shown = [line for line in lines_of(monkeypatch, 80, "pretrain", 50000, 20000, ALL) if "loss" in line]
    assert shown
    for line in shown:
        assert len(line) <= 80
        assert line.startswith("pretrain: 20100/50000 |")
        assert line.rstrip().endswith("left, loss 3.214, waiting for data 30 %")


def test_where_there_is_room_the_bar_says_everything(monkeypatch):
    for columns, total in ((80, 500), (120, 50000)):
        shown = lines_of(monkeypatch, columns, "toy", total, 100, ALL)
        assert any(line.rstrip().endswith(", ".join(ALL)) for line in shown)
        assert max(map(len, shown)) <= columns


def test_where_stderr_is_no_terminal_nothing_is_left_out(capsys):
    with bar("pretrain", 50000) as progress:
        progress.say(ALL)
        progress.refresh()
    assert ", ".join(ALL) in capsys.readouterr().err
