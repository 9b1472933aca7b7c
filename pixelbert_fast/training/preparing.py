"""Building the data set of a run that is not there yet."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.logs import bar
from pixelbert_fast.training.ranks import Ranks


def prepare_data(config: RunConfig, ranks: Ranks) -> None:
    """Build the data set if the configuration says how and it is not there; the other processes wait."""
    build = config.data.build
    if build is None:
        return

    def work() -> None:
        from pixelbert_fast.data.build import build_set, make_builder

        builder, directory = make_builder(build.name, **build.options()), Path(config.data.directory)
        with contextlib.ExitStack() as shown:
            progress = None

            def advanced(more: int, total: int) -> None:
                nonlocal progress
                if progress is None:  # a set that is there already shows no bar
                    progress = shown.enter_context(bar(f"building {directory}", total, unit="image"))
                progress.update(more)

            build_set(builder, directory, progress=advanced)

    ranks.first_does(work)
