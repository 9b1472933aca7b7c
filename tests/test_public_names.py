"""The names a user imports from `pixelbert_fast`: they are there, they are lazy, and nothing else is."""

from __future__ import annotations

import re

import pytest
from packaging.version import Version

import pixelbert_fast

NAMES = {
    "PixelBertConfig": "pixelbert_fast.model",
    "FastPixelBERT": "pixelbert_fast.model",
    "PixelBERT": "pixelbert_fast.model",
    "PixelBertForPreTraining": "pixelbert_fast.model",
    "PixelBertForVisualQuestionAnswering": "pixelbert_fast.model",
    "PixelBertForNaturalLanguageVisualReasoning": "pixelbert_fast.model",
    "PixelBertForImageTextRetrieval": "pixelbert_fast.model",
    "AttentionRequest": "pixelbert_fast.model",
    "InferenceShape": "pixelbert_fast.model",
    "PixelBertProcessor": "pixelbert_fast.data.processor",
}


def test_exactly_these_names_are_public() -> None:
    assert set(pixelbert_fast.__all__) == {"__version__", "ops", *NAMES}


@pytest.mark.parametrize(("name", "home"), NAMES.items())
def test_a_public_name_is_a_class_from_its_home(name: str, home: str) -> None:
    value = getattr(pixelbert_fast, name)
    assert isinstance(value, type)
    assert value.__name__ == name
    assert value.__module__.startswith(home)


def test_ops_is_the_module_with_the_three_ops() -> None:
    assert pixelbert_fast.ops.__name__ == "pixelbert_fast.ops"
    assert {"pool_gather", "pixel_embed", "sample_positions"} <= set(pixelbert_fast.ops.__all__)


def test_every_public_name_is_listed_and_imported_by_a_star() -> None:
    assert set(pixelbert_fast.__all__) <= set(dir(pixelbert_fast))
    space: dict[str, object] = {}
    exec("from pixelbert_fast import *", space)
    assert set(pixelbert_fast.__all__) <= set(space)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=re.escape("'pixelbert_fast' has no attribute 'PixelBart'")):
        _ = pixelbert_fast.PixelBart
    with pytest.raises(ImportError):
        exec("from pixelbert_fast import PixelBart")


def test_the_version_is_a_release() -> None:
    assert len(Version(pixelbert_fast.__version__).release) == 3
