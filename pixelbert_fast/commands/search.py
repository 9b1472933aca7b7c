"""`pixelbert search`: images ranked by a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pixelbert_fast.errors import UserError
from pixelbert_fast.pretrained import SCENES

from .report import write_page
from .showing import checkpoint_name, chosen_checkpoint, chosen_device, progress_bar


def search(
    directory: Annotated[Path, typer.Argument(help="A folder of images, or a built data set.")],
    text: Annotated[str, typer.Argument(help='Such as "a red circle above a blue square".')],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint of a retrieval or a pre-training, or the folder of the run that made it; "
            "default: the package's."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Of a built data set.")] = "test",
    top: Annotated[int, typer.Option(min=1, help="How many images are shown.")] = 12,
    out: Annotated[
        Path | None, typer.Option(help="A contact sheet of them, one self-contained HTML file.")
    ] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Search the first so many only.")] = None,
    images_per_batch: Annotated[int, typer.Option(min=1, help="At most.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda where there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Rank images by how well a text is true of them: a table, and a contact sheet of the best."""
    from pixelbert_fast.tasks.retrieval.checkpoint import search as ranked

    checkpoint = chosen_checkpoint(checkpoint, SCENES)
    if out is not None and out.is_dir():
        raise UserError(f"{out} is a folder; give the name of a file in it")
    names, content = _source(directory, split)
    names = names[:images]
    unread: list[tuple[str, str]] = []
    with progress_bar(f"searching {directory}") as progress:

        def read() -> Iterator[tuple[str, bytes]]:
            for done, name in enumerate(names, start=1):
                try:
                    yield name, content(name)
                except OSError as error:
                    unread.append((name, str(error.strerror)))
                progress(done, len(names))

        found = ranked(
            checkpoint,
            read(),
            text,
            images_per_batch=images_per_batch,
            device=chosen_device(device),
            skipped=lambda name, reason: unread.append((name, reason)),
        )
    _show(found[:top], unread, as_json)
    if out is not None:
        by = checkpoint_name(checkpoint)
        about = [f"{len(found):,} images of {directory}, the best {min(top, len(found))}, by {by}"]
        write_page(out, _page(text, found[:top], content, checkpoint, about))
        typer.echo(str(out), err=as_json)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("search")(search)


def _source(directory: Path, split: str) -> tuple[list[str], Callable[[str], bytes]]:
    """The names of the images in a folder, below it too, or of a built set's split; and what reads one."""
    from pixelbert_fast.data.image_bounds import FORMATS, MAX_BYTES
    from pixelbert_fast.data.records import open_set, read_card

    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}: give one with images, or a built data set")
    if read_card(directory) is not None:
        records = open_set(directory).split(split)
        rows = {key: row for row, key in enumerate(records["key"][:])}
        encoded = records.select_columns(["image"])
        return list(rows), lambda name: encoded[rows[name]]["image"]
    from PIL import Image

    Image.init()  # registers every format's endings
    endings = {ending for ending, kind in Image.EXTENSION.items() if kind in FORMATS}
    files = sorted(path for path in directory.rglob("*") if path.suffix.lower() in endings and path.is_file())
    if not files:
        raise UserError(f"{directory} has no image in it: give a folder of images, or a built data set")

    def content(name: str) -> bytes:
        with (directory / name).open("rb") as file:
            return file.read(MAX_BYTES + 1)

    return [str(path.relative_to(directory)) for path in files], content


def _show(found: list, unread: list[tuple[str, str]], as_json: bool) -> None:
    from pixelbert_fast.visualize.found_images import ranking

    for name, reason in unread[:5]:
        typer.echo(f"left out {name}: {reason}", err=True)
    if len(unread) > 5:
        typer.echo(f"left out {len(unread) - 5} more", err=True)
    if as_json:
        typer.echo(json.dumps([{"image": one.name, "score": one.score} for one in found], ensure_ascii=False))
    else:
        typer.echo("\n".join(ranking(found)))


def _page(text: str, found: list, content: Callable[[str], bytes], checkpoint: Path, about: list[str]) -> str:
    from pixelbert_fast.data.processor import PixelBertProcessor
    from pixelbert_fast.data.summary import SizeRule
    from pixelbert_fast.model.config import PixelBertConfig
    from pixelbert_fast.tasks.saved_model import checkpoint_folder
    from pixelbert_fast.visualize.found_images import found_page

    folder = checkpoint_folder(checkpoint)
    sizes: Any = PixelBertProcessor.from_pretrained(folder, trust_remote_code=False).image_processor
    rule = SizeRule(sizes.short_side, sizes.long_side, sizes.size_divisor, sizes.least_side)
    return found_page(text, found, content, rule, PixelBertConfig.from_pretrained(folder), about)
