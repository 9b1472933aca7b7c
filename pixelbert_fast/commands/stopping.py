"""What a command says when Ctrl-C stops it."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from pixelbert_fast.errors import Stopped


class Stoppable(TyperGroup):
    """Commands of which each says that it was stopped: typer alone ends without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped(
                "stopped; nothing was left half written, and the same command can be run again"
            ) from None
