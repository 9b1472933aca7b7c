"""Times building sets from files of the published layouts and sizes, and says what memory that takes.

    python benchmarks/bench_builders.py
    python benchmarks/bench_builders.py --scale 0.05 coco visual-genome vqa2 captions

The published files are not needed: made-up ones of their layouts, with as many images and texts, take their
place. The images are small JPEGs (links to 64 files), so what is timed is the builder and not the decoder.
Each set is built twice by one worker, in a process of its own: at a fifth of the size, and whole; what memory
grows by between the two is what is not streamed. Memory is the process's own at its highest, pages of mapped
files not included. Built sets are compared with what was given.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PARTS = (0.2, 1.0)
_LINKED = 64
_WORDS = [f"word{number}" for number in range(5_000)]


class Texts:
    """Random texts of so many words, quickly."""

    def __init__(self, seed: int):
        self._random = np.random.default_rng(seed)
        self._words = self._endless()

    def __call__(self, words: int) -> str:
        return " ".join(islice(self._words, words))

    def _endless(self) -> Iterator[str]:
        while True:
            yield from (
                _WORDS[number] for number in self._random.integers(len(_WORDS), size=100_000).tolist()
            )


def link_images(folder: Path, names: Iterator[str]) -> None:
    """A small JPEG at each of these names."""
    from PIL import Image

    random = np.random.default_rng(0)
    sources = []
    for number in range(_LINKED):
        stream = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((64, 48)).save(
            stream, "JPEG"
        )
        sources.append(folder / f"source{number}")
        sources[-1].write_bytes(stream.getvalue())
    for number, name in enumerate(names):
        os.link(sources[number % _LINKED], folder / name)


def write_list(path: Path, head: str, elements: Iterator[dict], tail: str) -> None:
    """A JSON file of one list, an element at a time."""
    with path.open("w") as file:
        file.write(head)
        for number, element in enumerate(elements):
            file.write((", " if number else "") + json.dumps(element))
        file.write(tail)


def make_coco(folder: Path, scale: float) -> dict:
    """dataset_coco.json with five captions an image."""
    images, texts = int(123_287 * scale), Texts(1)
    (folder / "train2014").mkdir()
    (folder / "val2014").mkdir()

    def entries() -> Iterator[dict]:
        for number in range(images):
            split = "val" if number % 25 == 0 else "test" if number % 25 == 1 else "train"
            year = "train2014" if split == "train" else "val2014"
            spoken = [
                {
                    "tokens": (text := texts(10)).split(),
                    "raw": text,
                    "imgid": number,
                    "sentid": 5 * number + one,
                }
                for one in range(5)
            ]
            yield {
                "filepath": year,
                "sentids": [one["sentid"] for one in spoken],
                "filename": f"COCO_{year}_{number:012d}.jpg",
                "imgid": number,
                "split": split,
                "sentences": spoken,
                "cocoid": number,
            }

    write_list(folder / "dataset_coco.json", '{"images": [', entries(), '], "dataset": "coco"}')
    years = ("val2014" if number % 25 < 2 else "train2014" for number in range(images))
    link_images(folder, (f"{year}/COCO_{year}_{number:012d}.jpg" for number, year in enumerate(years)))
    return {"images": str(folder), "annotations": [str(folder / "dataset_coco.json")], "given": images}


def make_visual_genome(folder: Path, scale: float) -> dict:
    """region_descriptions.json with 50 regions an image, image_data.json, and a small split file of COCO."""
    images, texts = int(108_077 * scale), Texts(2)
    coco = folder / "coco"
    coco.mkdir()
    karpathy = make_coco(coco, 0.001)["annotations"][0]
    (folder / "VG_100K").mkdir()
    site = "https://cs.stanford.edu/people/rak248/VG_100K"
    write_list(
        folder / "image_data.json",
        "[",
        (
            {
                "width": 64,
                "url": f"{site}/{n}.jpg",
                "height": 48,
                "image_id": n,
                "coco_id": None,
                "flickr_id": None,
            }
            for n in range(images)
        ),
        "]",
    )
    write_list(
        folder / "region_descriptions.json",
        "[",
        (
            {
                "regions": [
                    {
                        "region_id": 50 * number + one,
                        "width": 82,
                        "height": 139,
                        "image_id": number,
                        "phrase": texts(5),
                        "y": 57,
                        "x": 421,
                    }
                    for one in range(50)
                ],
                "id": number,
            }
            for number in range(images)
        ),
        "]",
    )
    link_images(folder, (f"VG_100K/{number}.jpg" for number in range(images)))
    files = [str(folder / name) for name in ("region_descriptions.json", "image_data.json")]
    return {"images": str(folder), "annotations": files, "karpathy": karpathy, "given": images}


def make_vqa2(folder: Path, scale: float) -> dict:
    """Questions of train, val and test, 5.4 an image, with ten answers where those are public."""
    sizes = {"train2014": (443_757, 82_783), "val2014": (214_354, 40_504), "test2015": (447_793, 81_434)}
    texts, files, given, first = Texts(3), [], 0, 0
    kinds = ("yes", "maybe", "no")
    for subtype, (questions, images) in sizes.items():
        questions, images = int(questions * scale), int(images * scale)
        (folder / subtype).mkdir()
        asked = (
            {"image_id": first + n % images, "question": texts(6) + "?", "question_id": n}
            for n in range(questions)
        )
        files.append(folder / f"v2_OpenEnded_mscoco_{subtype}_questions.json")
        write_list(files[-1], f'{{"data_subtype": "{subtype}", "questions": [', asked, "]}")
        if subtype != "test2015":

            def answered(
                first: int = first, images: int = images, questions: int = questions
            ) -> Iterator[dict]:
                for number in range(questions):
                    main = _WORDS[number % min(3_000, questions // 12 + 1)]
                    yield {
                        "question_type": "what is",
                        "multiple_choice_answer": main,
                        "answers": [
                            {"answer": main, "answer_confidence": kinds[one % 3], "answer_id": one + 1}
                            for one in range(10)
                        ],
                        "image_id": first + number % images,
                        "answer_type": "other",
                        "question_id": number,
                    }

            files.append(folder / f"v2_mscoco_{subtype}_annotations.json")
            write_list(files[-1], f'{{"data_subtype": "{subtype}", "annotations": [', answered(), "]}")
        link_images(
            folder / subtype, (f"COCO_{subtype}_{first + number:012d}.jpg" for number in range(images))
        )
        given, first = given + images, first + images
    return {"images": str(folder), "annotations": [str(file) for file in files], "given": given}


def make_captions(folder: Path, scale: float) -> dict:
    """50,000 images with a caption each, in a CSV."""
    images, texts = int(50_000 * scale), Texts(4)
    with (folder / "captions.csv").open("w") as file:
        file.write("image,caption\n")
        file.writelines(f"{number}.jpg,{texts(10)}\n" for number in range(images))
    link_images(folder, (f"{number}.jpg" for number in range(images)))
    return {"images": str(folder), "annotations": [str(folder / "captions.csv")], "given": images}


MAKERS: dict[str, Callable[[Path, float], dict]] = {
    "coco": make_coco,
    "visual-genome": make_visual_genome,
    "vqa2": make_vqa2,
    "captions": make_captions,
}


def own_memory() -> float:
    """This process's resident memory in MB without pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon"))


@contextmanager
def watched(before: float) -> Iterator[dict]:
    """Seconds of this process's time, and the most memory it has meanwhile above `before`, in MB."""
    found, ended = {"MB": 0.0}, threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            found["MB"] = max(found["MB"], own_memory() - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    wall, used = time.perf_counter(), time.process_time()
    yield found
    found |= {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - used}
    ended.set()
    thread.join()


def measure(name: str, options: dict, out: Path) -> dict:
    """Plan and build, in this process."""
    import datasets  # noqa: F401 - importing it is no part of a build

    from pixelbert_fast.data.build import build_set, make_builder
    from pixelbert_fast.data.records import open_set

    given = options.pop("given")
    before = own_memory()  # what the plan leaves is not given back at once, and counts
    with watched(before) as planned:
        plan = make_builder(name, **options).plan()
    del plan
    with watched(before) as built:
        report = build_set(make_builder(name, **options), out, workers=1)
    if sum(report.counts.values()) != given or report.dropped:
        raise SystemExit(f"{name}: {report.counts} were built and {len(report.dropped)} dropped of {given}")
    opened = open_set(out)
    for split in (split for split, records in report.counts.items() if records):
        row = opened.split(split)[report.counts[split] // 2]
        if (row["height"], row["width"]) != (48, 64) or not (row["captions"] or row["questions"]):
            raise SystemExit(f"{name}: the record {row['key']} of {split} is not what was given")
    return {
        "records": given,
        **{f"plan_{what}": round(value, 1) for what, value in planned.items()},
        **{f"build_{what}": round(value, 1) for what, value in built.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(MAKERS)}; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="of the published size")
    parser.add_argument("--folder", type=Path, help="where all is made; default: a temporary folder")
    parser.add_argument("--measure", nargs=3, metavar=("SET", "OPTIONS", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, given, out = options.measure
        print(json.dumps(measure(name, json.loads(given), Path(out))))
        return
    unknown = [name for name in options.sets if name not in MAKERS]
    if unknown:
        parser.error(f"there is no {unknown[0]}, the sets are {', '.join(MAKERS)}")
    for name in options.sets or MAKERS:
        for part in PARTS:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                source = Path(folder, "source")
                source.mkdir()
                given = MAKERS[name](source, options.scale * part)
                size = sum(Path(path).stat().st_size for path in given["annotations"]) / 1e6
                command = [sys.executable, __file__, "--measure", name, json.dumps(given), f"{folder}/set"]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                print(
                    name, json.dumps({"annotations_MB": round(size), **json.loads(done.stdout)}), flush=True
                )


if __name__ == "__main__":
    main()
