"""`pixelbert attend`: where each word of a caption looks, as a page and as figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixelbert_fast.errors import UserError
from pixelbert_fast.pretrained import SCENES

from .showing import checkpoint_name, chosen_checkpoint, chosen_device, table

if TYPE_CHECKING:
    from pixelbert_fast.tasks.attending import AttentionMaps

_HELP = """Show which pixels each word of a caption attends to: one HTML page, and figures as PNG.

The page needs no server and no network: point at a word, and its map lies over the image. Every layer and
head is in it; the options say what it shows first, and what the figures show.
"""


def attend(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    captions: Annotated[
        list[str], typer.Argument(metavar="CAPTION...", help='Such as "a red star above a blue circle".')
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint of any task, or the folder of the run that made it; default: the package's."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("attention.html"),
    png: Annotated[Path | None, typer.Option(help="A folder for a figure of each caption.")] = None,
    layer: Annotated[str, typer.Option(help="From 1, as the paper shows, or mean.")] = "1",
    head: Annotated[str, typer.Option(help="From 1, or mean.")] = "mean",
    rollout: Annotated[
        bool, typer.Option("--rollout", help="Attention followed through all layers instead.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda where there is one.")] = None,
) -> None:
    from pixelbert_fast.tasks.attending import attention_maps_of_texts, load_any
    from pixelbert_fast.visualize.word_page import attention_page

    from .report import write_page

    checkpoint = chosen_checkpoint(checkpoint, SCENES)
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give the name of a file in it")
    if png is not None and png.exists() and not png.is_dir():
        raise UserError(f"--png {png} is a file; give a folder for the figures")
    model, processor = load_any(checkpoint, chosen_device(device))
    config = model.config
    chosen = {
        "layer": _numbered("layer", layer, config.num_hidden_layers),
        "head": _numbered("head", head, config.num_attention_heads),
        "rollout": rollout,
    }
    maps = attention_maps_of_texts(model, image, captions, processor=processor, rollout=True)
    about = [f"{image.name}, read by {checkpoint_name(checkpoint)}"]
    page = attention_page(maps, image, about=about, **chosen)
    write_page(out, page)
    figures = [] if png is None else _figures(png, maps, image, chosen)
    for one in maps:
        typer.echo(one.text)
        typer.echo(table(_rows(one, chosen)))
    for file in (out, *figures):
        typer.echo(str(file))


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("attend", help=_HELP)(attend)


def _numbered(name: str, given: str, count: int) -> int | None:
    """The option's number from 0, None for the mean."""
    if given == "mean":
        return None
    if not given.isdecimal() or not 1 <= int(given) <= count:
        raise UserError(
            f"--{name} is {given!r}: the model has {name}s 1 to {count}; give one of them, or mean"
        )
    return int(given) - 1


def _figures(folder: Path, maps: Sequence[AttentionMaps], image: Path, chosen: dict) -> list[Path]:
    from pixelbert_fast.visualize.attention_figure import draw

    files = []
    for number, one in enumerate(maps, start=1):
        files.append(folder / (f"attention-{number}.png" if len(maps) > 1 else "attention.png"))
        figure = draw(one, image, **chosen)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            figure.save(files[-1])
        except OSError as error:
            raise UserError(f"{files[-1]} cannot be written ({error.strerror}); give another place") from None
    return files


def _rows(maps: AttentionMaps, chosen: dict) -> list[tuple[str, str]]:
    from pixelbert_fast.visualize.attention_figure import percent

    found = maps.rollout if chosen["rollout"] else maps.of(chosen["layer"], chosen["head"])
    rows = []
    for word, one in zip(maps.words, found, strict=True):
        row, column = divmod(int(one.argmax()), maps.grid[1])
        most = f"{percent(float(one.max()))} at row {row + 1}, column {column + 1}"
        rows.append((f"  {word}", f"{percent(float(one.sum()))} on the image, {most}"))
    return rows
