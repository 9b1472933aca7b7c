"""`pixelbert predict match`: how well captions fit an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pixelbert_fast.pretrained import SCENES

from .showing import chosen_checkpoint, chosen_device, table


def match(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    captions: Annotated[list[str], typer.Argument(metavar="CAPTION...", help="One, or several to rank.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A pre-trained model: its checkpoint, or its run's folder; default: the package's."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda where there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say how probable it is that each caption belongs to an image, the most probable first."""
    from pixelbert_fast.tasks.pretraining.match import match as matched

    found = matched(chosen_checkpoint(checkpoint, SCENES), image, captions, device=chosen_device(device))
    # Captions of one probability stay in the order in which they were given.
    ranked = sorted(zip(captions, found, strict=True), key=lambda one: -one[1])
    if as_json:
        typer.echo(json.dumps([{"caption": caption, "probability": score} for caption, score in ranked]))
    else:
        typer.echo(table([(caption, f"{100 * score:.1f} %") for caption, score in ranked]))


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("match")(match)
