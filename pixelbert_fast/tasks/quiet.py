"""transformers without its own bars and tables, where this package says what matters of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
from transformers.utils import logging


@contextmanager
def without_bars() -> Iterator[None]:
    """No "Loading weights" and "Writing model shards" inside; what the user had chosen holds again after."""
    if not logging.is_progress_bar_enabled():
        yield
        return
    of_the_hub = not are_progress_bars_disabled()
    logging.disable_progress_bar()  # the hub's as well
    try:
        yield
    finally:
        logging.enable_progress_bar()
        if not of_the_hub:
            disable_progress_bars()


@contextmanager
def quietly() -> Iterator[None]:
    """Nor the table of the weights that do not fit: whoever loads them reads the report and says it."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with without_bars():
            yield
    finally:
        logging.set_verbosity(before)
