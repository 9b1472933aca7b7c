"""Pages and pictures to look at."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelbert_fast.tasks.attending import AttentionMaps as AttentionMaps
    from pixelbert_fast.tasks.attending import attention_maps as attention_maps
    from pixelbert_fast.visualize.attention_figure import draw as draw
    from pixelbert_fast.visualize.word_page import attention_page as attention_page

_HOMES = {
    "AttentionMaps": "pixelbert_fast.tasks.attending",
    "attention_maps": "pixelbert_fast.tasks.attending",
    "draw": "pixelbert_fast.visualize.attention_figure",
    "attention_page": "pixelbert_fast.visualize.word_page",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
