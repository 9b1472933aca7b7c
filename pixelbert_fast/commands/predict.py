"""The group `pixelbert predict`, to which each task adds what it can say of single images."""

import typer

app = typer.Typer(help="Ask a trained model about images.", no_args_is_help=True, rich_markup_mode=None)


def register(above: typer.Typer) -> None:
    """Adds the group."""
    above.add_typer(app, name="predict")
