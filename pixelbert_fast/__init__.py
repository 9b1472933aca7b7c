"""Pixel-BERT, plain and fast: version and public names.

Importing this package imports neither torch nor transformers; the first use of a public name does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._source_tree import register_kernels

if TYPE_CHECKING:
    from . import ops as ops
    from .data.processor import PixelBertProcessor as PixelBertProcessor
    from .model import AttentionRequest as AttentionRequest
    from .model import FastPixelBERT as FastPixelBERT
    from .model import InferenceShape as InferenceShape
    from .model import PixelBERT as PixelBERT
    from .model import PixelBertConfig as PixelBertConfig
    from .model import PixelBertForImageTextRetrieval as PixelBertForImageTextRetrieval
    from .model import (
        PixelBertForNaturalLanguageVisualReasoning as PixelBertForNaturalLanguageVisualReasoning,
    )
    from .model import PixelBertForPreTraining as PixelBertForPreTraining
    from .model import PixelBertForVisualQuestionAnswering as PixelBertForVisualQuestionAnswering

__version__ = "0.1.0"

register_kernels(__name__, __path__)

_HOMES = {
    "PixelBertConfig": ".model",
    "PixelBERT": ".model",
    "FastPixelBERT": ".model",
    "PixelBertForPreTraining": ".model",
    "PixelBertForVisualQuestionAnswering": ".model",
    "PixelBertForNaturalLanguageVisualReasoning": ".model",
    "PixelBertForImageTextRetrieval": ".model",
    "AttentionRequest": ".model",
    "InferenceShape": ".model",
    "PixelBertProcessor": ".data.processor",
}
_MODULES = ("ops",)

__all__ = ["__version__", *_HOMES, *_MODULES]  # noqa: PLE0604 - the names come from one table


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name], __name__), name)
    elif name in _MODULES:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
