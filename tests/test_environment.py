"""The ground floor: environment variables, the nearest name, and why Triton cannot run somewhere."""

from __future__ import annotations

import importlib.util

import pytest

from pixelbert_fast.environment import BUILD, TORCH_INDEX, VARIABLES
from pixelbert_fast.errors import UserError, nearest
from pixelbert_fast.kernels.support import why_not


@pytest.mark.parametrize(
    ("value", "read"), [(None, "auto"), ("", "auto"), (" skip ", "skip"), ("force", "force")]
)
def test_a_variable_is_read_with_its_default(
    value: str | None, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv(BUILD.name, raising=False)
    else:
        monkeypatch.setenv(BUILD.name, value)
    assert BUILD.read() == read


def test_a_wrong_value_names_the_variable_its_choices_and_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(BUILD.name, "forse")
    with pytest.raises(UserError) as caught:
        BUILD.read()
    expected = "PIXELBERT_FAST_BUILD is 'forse'; it takes one of auto, force, skip; did you mean 'force'?"
    assert str(caught.value) == expected


def test_a_variable_without_choices_takes_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TORCH_INDEX.name, "https://example.org/simple")
    assert TORCH_INDEX.read() == "https://example.org/simple"
    monkeypatch.delenv(TORCH_INDEX.name)
    assert TORCH_INDEX.read() == ""


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
def test_every_variable_has_a_meaning_and_a_valid_default(variable) -> None:
    assert variable.meaning.endswith(".")
    assert not variable.choices or variable.default in variable.choices


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("optimiser", ["optimizer", "schedule"], "optimizer"),
        ("weight-decay", ["weight_decay", "warmup"], "weight_decay"),
        ("SCENES", ["scenes", "scenes-objects"], "scenes"),
        ("pixelbert", ["data", "train"], None),
        ("x", [], None),
    ],
)
def test_nearest(word: str, known: list[str], expected: str | None) -> None:
    assert nearest(word, known) == expected


def test_triton_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    there = {"triton": object()}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there.get(name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "interpreter" in why_not("cpu")
    assert "no GPU" in why_not("cuda")
    assert "not on 'meta'" in why_not(torch.device("meta"))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert why_not("cpu") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert why_not("cuda:0") is None
    there.clear()
    assert "not installed" in why_not("cpu")
