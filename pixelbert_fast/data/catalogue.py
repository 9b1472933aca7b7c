"""The data sets that can be built, by name: where each builder lies, and what it takes."""

import importlib
import inspect
from typing import Any, NamedTuple

from pixelbert_fast.errors import UserError, nearest


class Listed(NamedTuple):
    """A builder: ``module:class``, and one line for `pixelbert data build --help`."""

    place: str
    line: str


BUILDERS = {
    "scenes": Listed("pixelbert_fast.data.scenes.builder:Scenes", "rendered scenes of 1 to 4 objects"),
    "scenes-objects": Listed(
        "pixelbert_fast.data.scenes.builder:SceneObjects", "rendered single objects, to teach a backbone"
    ),
    "tuxpaint": Listed(
        "pixelbert_fast.data.tuxpaint.builder:Tuxpaint", "photographs of Tux Paint's stamps, composed"
    ),
    "tuxpaint-pairs": Listed(
        "pixelbert_fast.data.tuxpaint.builder:TuxpaintPairs", "tuxpaint with statements about two images"
    ),
    "tuxpaint-objects": Listed(
        "pixelbert_fast.data.tuxpaint.builder:TuxpaintObjects", "single photographs of Tux Paint's stamps"
    ),
    "coco": Listed(
        "pixelbert_fast.data.karpathy:Coco", "COCO captions: train2014, val2014, dataset_coco.json"
    ),
    "flickr30k": Listed(
        "pixelbert_fast.data.karpathy:Flickr30k", "Flickr30K captions: dataset_flickr30k.json"
    ),
    "visual-genome": Listed(
        "pixelbert_fast.data.visual_genome:VisualGenome", "Visual Genome's regions, with --karpathy"
    ),
    "captions": Listed(
        "pixelbert_fast.data.caption_files:CaptionFile", "your images with a .csv, .tsv or .jsonl file"
    ),
    "huggingface": Listed(
        "pixelbert_fast.data.hugging_face:HuggingFace", "a set of `datasets`: --source, --column"
    ),
    "vqa2": Listed("pixelbert_fast.data.vqa.vqa2:VQA2", "VQA v2: --images of COCO, --annotations, each file"),
    "nlvr2": Listed("pixelbert_fast.data.nlvr2:NLVR2", "NLVR2: --images, --annotations train.json, dev.json"),
    "easy-vqa": Listed(
        "pixelbert_fast.data.vqa.easy_vqa:EasyVQA", "easy-VQA: --source, folder of the package easy-vqa"
    ),
}


def listing() -> list[str]:
    """A line for each data set: its name and what it is."""
    width = max(map(len, BUILDERS))
    return [f"{name:<{width}}  {listed.line}" for name, listed in BUILDERS.items()]


def options_from_words(name: str, words: dict[str, Any]) -> dict[str, Any]:
    """The options of a command line, where a word is a number if the builder's signature says ``int``.

    What is None or empty was not given and is left out. Raises UserError for a word that is no number, and
    for an unknown builder.
    """
    known = _parameters(name)
    options = {}
    for option, value in words.items():
        if value in (None, "", []):
            continue
        if isinstance(value, str) and option in known and known[option].annotation is int:
            try:
                value = int(value)
            except ValueError:
                raise UserError(
                    f"the data set {name!r} takes a whole number for --{option}, not {value!r}"
                ) from None
        options[option] = value
    return options


def make_builder(name: str, **options: Any) -> Any:
    """The builder of this name (a `build.SetBuilder`); an option of None counts as not given.

    Raises UserError naming an unknown builder or option, with the nearest known one.
    """
    known = _parameters(name)
    for option in options:
        if option not in known:
            raise UserError(f"the data set {name!r} has no option {option!r}{_hint(option, known)}")
    for option, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and options.get(option) is None:
            raise UserError(f"the data set {name!r} needs the option {option!r}")
    return builder_class(name)(**{option: value for option, value in options.items() if value is not None})


def builder_class(name: str) -> Any:
    """The class of this builder; raises UserError where there is none, with the nearest name."""
    if name not in BUILDERS:
        raise UserError(f"there is no data set {name!r}{_hint(name, BUILDERS)}")
    module, _, attribute = BUILDERS[name].place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(builder_class(name), eval_str=True).parameters)


def _hint(word: str, known) -> str:
    close = nearest(word, list(known))
    return f"; did you mean {close!r}?" if close else f"; known are: {', '.join(known)}"
