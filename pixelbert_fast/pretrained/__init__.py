"""Small trained models that come with the package, and pictures to try them on.

They know the rendered scenes of `pixelbert data build scenes` and nothing else: coloured shapes on a ground,
in the words of its captions. Each has a card, README.md, in its folder; `.ci/pack_pretrained.py` makes them
from the runs of committed recipes.
"""

from __future__ import annotations

from pathlib import Path

from pixelbert_fast.errors import UserError, nearest

_HERE = Path(__file__).resolve().parent
SCENES = "scenes"
"""Pre-trained: matches captions and images (`PixelBertForPreTraining`)."""
SCENES_VQA = "scenes-vqa"
"""The former fine-tuned to answer questions (`PixelBertForVisualQuestionAnswering`)."""
NAMES = (SCENES, SCENES_VQA)


def folder(name: str = SCENES) -> Path:
    """Where a model of the package lies, to be given to `from_pretrained` or as a `--checkpoint`.

    Raises UserError where the package has none of that name.
    """
    if name not in NAMES:
        meant = nearest(name, NAMES)
        hint = f"; did you mean {meant!r}?" if meant else ""
        raise UserError(f"no model called {name!r} comes with the package, only {', '.join(NAMES)}{hint}")
    return _HERE / name


def pictures() -> list[Path]:
    """Scenes that no model of the package was trained on, JPEG files in the order of their names."""
    return sorted((_HERE / "pictures").glob("*.jpg"))


def texts() -> Path:
    """What is in the pictures: a tab-separated file with a caption, a question and its answer for each."""
    return _HERE / "pictures" / "texts.tsv"
