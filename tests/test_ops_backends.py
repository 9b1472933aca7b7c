"""Which backend runs an op, and what is said where one cannot."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from pixelbert_fast.environment import BACKEND
from pixelbert_fast.ops import backends

FLOAT = torch.float32


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, SimpleNamespace]:
    """`cpu` can run; `triton` cannot run pool_gather and is never automatic on a CPU."""
    there = {
        "triton": SimpleNamespace(
            AUTOMATIC=("cuda",), why_not=lambda op, *_: "it is Tuesday." if op == "pool_gather" else None
        ),
        "cpu": SimpleNamespace(AUTOMATIC=("cpu",), why_not=lambda *_: None),
    }
    monkeypatch.setattr(backends, "module", there.get)
    monkeypatch.delenv(BACKEND.name, raising=False)
    backends._say_once.cache_clear()
    return there


def test_argument_then_context_then_environment_then_automatic(
    fakes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backends.choose("pixel_embed", None, "cpu", FLOAT) == "cpu"
    monkeypatch.setenv(BACKEND.name, "reference")
    assert backends.choose("pixel_embed", None, "cpu", FLOAT) == "reference"
    with backends.backend("triton"):
        assert backends.choose("pixel_embed", None, "cpu", FLOAT) == "triton"
        assert backends.choose("pixel_embed", "cpu", "cpu", FLOAT) == "cpu"
        with backends.backend(None):
            assert backends.choose("pixel_embed", None, "cpu", FLOAT) == "cpu"
    assert backends.choose("pixel_embed", None, "cpu", FLOAT) == "reference"


def test_a_named_backend_that_cannot_run_says_why(fakes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "pool_gather: the backend 'triton' cannot run: it is Tuesday."
    with pytest.raises(backends.BackendError, match=message):
        backends.choose("pool_gather", "triton", "cuda", FLOAT)
    monkeypatch.setenv(BACKEND.name, "triton")
    with pytest.raises(backends.BackendError, match=message):
        backends.choose("pool_gather", None, "cuda", FLOAT)


def test_automatic_choice_falls_back_and_says_so_once(fakes: dict, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger=backends.__name__):
        assert [backends.choose("pool_gather", None, "cuda", FLOAT) for _ in range(3)] == ["reference"] * 3
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "it is Tuesday." in caplog.text


def test_an_absent_backend_is_named(fakes: dict) -> None:
    del fakes["triton"]
    assert "has no triton backend" in backends.why_not("triton", "pool_gather", "cuda", FLOAT)
    assert backends.choose("pool_gather", None, "cpu", FLOAT) == "cpu"


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ValueError, match=r"ops\.backend: backend must be one of reference"),
        backends.backend("tpu"),
    ):
        pass
    assert set(BACKEND.choices) == {"auto", *backends.BACKENDS}


def test_watchers_hear_what_runs() -> None:
    with backends.watch() as outer, backends.watch() as inner:
        backends.note("pool_gather", "reference")
    backends.note("pool_gather", "cpu")
    assert outer == inner == [("pool_gather", "reference")]
