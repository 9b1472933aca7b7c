"""What a VQA model of `scenes` still gets wrong: accuracy by what a question needs.

`python benchmarks/scenes_questions.py --checkpoint runs/vqa_scenes --data data/scenes-30k --split test`
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from pixelbert_fast.data.records import open_set
from pixelbert_fast.model.vqa import PixelBertForVisualQuestionAnswering
from pixelbert_fast.tasks.fine_tuned import load_fine_tuned
from pixelbert_fast.tasks.vqa.evaluation import EvaluationOptions, answers

# A question names its object by the first of these whose words it has; of `shape or colour` if by none.
NEEDS = {
    "place": {"top", "bottom", "left", "right", "middle", "centre"},
    "size": {"small", "large"},
    "texture": {"plain", "striped", "dotted"},
}


def needed(kind: str, question: str) -> str:
    """What tells the objects that a question is about."""
    words = set(question.rstrip("?").split())
    if kind == "yes/no":
        return "existence" if "there" in words else "relation"
    if kind == "where":
        return "place"
    if question == "how many objects are there?":
        return "nothing"
    return next((name for name, own in NEEDS.items() if words & own), "shape or colour")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--checkpoint", type=Path, default=Path("runs/vqa_scenes"))
    arguments.add_argument("--data", type=Path, default=Path("data/scenes-30k"))
    arguments.add_argument("--split", default="test")
    arguments.add_argument("--images", type=int, help="at most, spread over the split")
    given = arguments.parse_args()
    model, processor = load_fine_tuned(given.checkpoint, PixelBertForVisualQuestionAnswering)
    split = open_set(given.data).split(given.split)
    # Questions of these sets have no ids, so they are numbered as they come.
    asked = [question for own in split["questions"][:] for question in own]
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    options = EvaluationOptions(max_text_length=processor.max_text_length)
    for one in answers(
        model, split, processor.tokenizer, processor.image_processor, options, limit=given.images
    ):
        question = asked[one.id]
        count = counts[question["kind"], needed(question["kind"], question["question"])]
        count[0] += one.answer == question["answer"]
        count[1] += 1
    for (kind, need), (right, total) in sorted(counts.items()):
        print(f"{kind:<14} {need:<16} {100 * right / total:5.1f} % of {total:,}")


if __name__ == "__main__":
    main()
