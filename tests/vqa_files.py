"""VQA v2 and NLVR2 in small, field by field as they are distributed, oddities included."""

from __future__ import annotations

import io
import json
from pathlib import Path

from PIL import Image

INFO = {
    "description": "This is v2.0 of the VQA dataset.",
    "url": "http://visualqa.org",
    "version": "2.0",
    "year": 2017,
    "contributor": "VQA Team",
    "date_created": "2017-04-26 17:07:13",
}
LICENSE = {
    "url": "http://creativecommons.org/licenses/by/4.0/",
    "name": "Creative Commons Attribution 4.0 International License",
}


def picture(colour: tuple[int, int, int] = (90, 120, 30), size: tuple[int, int] = (8, 6), kind: str = "JPEG"):
    """The bytes of a small image."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def question(image: int, number: int, text: str = "What color is the dog?") -> dict:
    return {"image_id": image, "question": text, "question_id": image * 1000 + number}


def annotation(
    image: int, number: int, answers: list[str], main: str | None = None, kind: str = "other"
) -> dict:
    """`answers`: of ten annotators; `main`: multiple_choice_answer, by default the first."""
    sure = ("yes", "maybe", "no")
    return {
        "question_type": "what color is the",
        "multiple_choice_answer": answers[0] if main is None else main,
        "answers": [
            {"answer": answer, "answer_confidence": sure[place % 3], "answer_id": place + 1}
            for place, answer in enumerate(answers)
        ],
        "image_id": image,
        "answer_type": kind,
        "question_id": image * 1000 + number,
    }


def questions_file(subtype: str, questions: list[dict]) -> dict:
    return {
        "info": INFO,
        "task_type": "Open-Ended",
        "data_type": "mscoco",
        "license": LICENSE,
        "data_subtype": subtype,
        "questions": questions,
    }


def annotations_file(subtype: str, annotations: list[dict]) -> dict:
    """The list comes before data_type here, as in the real ones."""
    return {
        "info": INFO,
        "license": LICENSE,
        "data_subtype": subtype,
        "annotations": annotations,
        "data_type": "mscoco",
    }


def write(path: Path, content: dict) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def coco_image(root: Path, subtype: str, image: int, content: bytes | None = None) -> None:
    path = root / subtype / f"COCO_{subtype}_{image:012d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture() if content is None else content)


def statement(identifier: str, sentence: str, label: object = "True", directory: int | None = None) -> dict:
    """A line of train.json; dev.json and test1.json have `extra_validations` and no `directory`."""
    own = {"directory": directory} if directory is not None else {"extra_validations": {"154": "False"}}
    return {
        "validation": {"61": str(label)},
        "sentence": sentence,
        "left_url": "https://example.com/left.jpg",
        "writer": "61",
        "label": label,
        "right_url": "https://example.com/right.jpg",
        "synset": "beer bottle",
        "query": "some beer bottles38",
        "identifier": identifier,
        **own,
    }


def write_lines(path: Path, statements: list[dict]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in statements), encoding="utf-8")
    return path
