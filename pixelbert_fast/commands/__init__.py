"""Commands of `pixelbert` with a module each, which adds its own to the command line."""

import typer

from . import (
    ablate,
    attend,
    evaluate,
    examples,
    predict,
    predict_match,
    predict_nlvr2,
    predict_vqa,
    report,
    search,
)


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    evaluate.register(app)
    predict.register(app)
    predict_vqa.register(predict.app)
    predict_nlvr2.register(predict.app)
    predict_match.register(predict.app)
    search.register(app)
    attend.register(app)
    examples.register(app)
    report.register(app)
    ablate.register(app)
