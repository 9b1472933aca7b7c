"""One small set of `scenes`, rendered once for all the tests that read it."""

import functools
import json

from pixelbert_fast.data.build import make_builder

IMAGES = 500


@functools.cache
def planned():
    """The plan of the set."""
    return make_builder("scenes", images=IMAGES, seed=3).plan()


@functools.cache
def rendered():
    """The records of every split, each with its scene and facts parsed; do not change them."""
    builder = make_builder("scenes", images=IMAGES, seed=3)
    splits = {split: [builder.render(spec) for spec in specs] for split, specs in planned().splits.items()}
    for record in (record for records in splits.values() for record in records):
        record["scene"] = json.loads(record["scene"])
        record["facts"] = [json.loads(fact) for fact in record["facts"]]
    return splits
