"""Commands of `pixelbert` that use a trained model; each module adds its own to the command line."""

import typer

from . import ablate, evaluate, predict, predict_match, predict_nlvr2, predict_vqa, search


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    ablate.register(app)
    evaluate.register(app)
    predict.register(app)
    predict_vqa.register(predict.app)
    predict_nlvr2.register(predict.app)
    predict_match.register(predict.app)
    search.register(app)
