"""Makes a model of `pixelbert_fast/pretrained` from a finished run: `python .ci/pack_pretrained.py RUN NAME`.

Matrices and convolutions are stored in bfloat16; what has one dimension (biases, norms and their running
statistics) stays in float32, where it costs little and a rounding would shift every output. `config.json`
says float32, so that `from_pretrained` computes in float32. With `--pictures DATA` the
pictures are taken as well, from the test split of a built `scenes` set.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PRETRAINED = ROOT / "pixelbert_fast" / "pretrained"
PICTURES = 9
_CARD = "README.md"

CARD = """---
license: apache-2.0
library_name: pixelbert_fast
tags: [pixel-bert, vision-language]
---
# pixelbert_fast: {name}

{about}

{training}

{held_out}

| | {splits} |
|---|{bars}|
{rows}

Weights: bfloat16, but float32 where they have one dimension. Licence: Apache-2.0, as the package.
"""

ABOUT = (
    "{what} It is small enough to come with the package ({megabytes:.1f} MB; {parameters:.2f} million "
    "parameters, preset `tiny`), and there to try the commands on before any training. **It knows rendered "
    "scenes and nothing else**: one to four coloured shapes on a plain, graded or noisy ground, 96 x 96 px, "
    "in the words of their captions (`pixelbert data build scenes`; docs/data-scenes.md). Of photographs it "
    "says nothing of use."
)
TRAINING = (
    "Training: `pixelbert train --config {recipe}`, from rendered images alone, no third-party data. "
    "{steps:,} steps, {minutes:.0f} minutes of one CPU core{start}; torch {torch}."
)
HELD_OUT = "Held-out scenes{images}, before rounding to bfloat16 (`metrics.json` of the run):"
WHAT = {
    "PixelBertForPreTraining": "A Pixel-BERT pre-trained by masked words and image-text matching.",
    "PixelBertForVisualQuestionAnswering": "A Pixel-BERT fine-tuned to answer questions (32 answers).",
}
FIGURES = {
    "itm_accuracy": "captions told from false ones",
    "mlm_accuracy_content": "masked content words",
    "accuracy": "questions answered right",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("run", type=Path)
    arguments.add_argument("name")
    arguments.add_argument(
        "--recipe",
        required=True,
        help="what the run was started with: a recipe and the overrides that changed it",
    )
    arguments.add_argument("--pictures", type=Path, help="a built scenes set")
    given = arguments.parse_args()
    target = PRETRAINED / given.name
    target.mkdir(parents=True, exist_ok=True)
    parameters = _weights(given.run / "checkpoint", target)
    (target / _CARD).write_text(_card(given, target, parameters), encoding="utf-8")
    if given.pictures:
        _pictures(given.pictures)


def _weights(source: Path, target: Path) -> int:
    """Writes the checkpoint; how many parameters it has, tied ones once."""
    import torch
    from safetensors.torch import load_file, save_file

    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        shutil.copyfile(source / name, target / name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = load_file(source / "model.safetensors")
    stored = {
        name: weight.to(torch.bfloat16) if weight.ndim > 1 and weight.is_floating_point() else weight
        for name, weight in weights.items()
    }
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    (target / "model.safetensors").chmod(0o644)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return sum(weight.numel() for name, weight in weights.items() if not name.endswith(statistics))


def _card(given: argparse.Namespace, target: Path, parameters: int) -> str:
    metrics = json.loads((given.run / "metrics.json").read_text(encoding="utf-8"))
    last = [json.loads(line) for line in (given.run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [one for one in last if one.get("kind") == "train"][-1]
    splits = [name for name in ("val", "test") if name in metrics["metrics"]]
    rows = []
    for key, title in FIGURES.items():
        if key in metrics["metrics"][splits[0]]:
            shares = " | ".join(f"{100 * metrics['metrics'][split][key]:.1f} %" for split in splits)
            rows.append(f"| {title} | {shares} |")
    (architecture,) = json.loads((target / "config.json").read_text(encoding="utf-8"))["architectures"]
    config = metrics["config"]
    images = config["evaluation"]["images"]
    paragraphs = {
        "about": ABOUT.format(
            what=WHAT[architecture],
            megabytes=sum(file.stat().st_size for file in target.iterdir() if file.name != _CARD) / 1e6,
            parameters=parameters / 1e6,
        ),
        "training": TRAINING.format(
            recipe=given.recipe,
            steps=last["step"],
            minutes=last["seconds"] / 60,
            start=_start(config["start"], metrics["start_seconds"]),
            torch=metrics["versions"]["torch"],
        ),
        "held_out": HELD_OUT.format(images=f" ({images:,} of each split)" if images else ""),
    }
    return CARD.format(
        name=given.name,
        splits=" | ".join(splits),
        bars="|".join("---" for _ in splits),
        rows="\n".join(rows),
        **{name: textwrap.fill(text, 118, break_on_hyphens=False) for name, text in paragraphs.items()},
    )


def _start(start: dict, seconds: float) -> str:
    """What the run began with, in words."""
    if start["checkpoint"]:
        return f" after those of `{start['checkpoint']}`, from which it starts"
    if start["checkpoint_recipe"]:
        return f", and {seconds / 60:.0f} before them for the recipe `{start['checkpoint_recipe']}`"
    return ""


def _pictures(directory: Path) -> None:
    """Test scenes of three or four objects, spread over the split, with what is said and asked of them."""
    from pixelbert_fast.data.records import open_set
    from pixelbert_fast.data.truth import parse

    target = PRETRAINED / "pictures"
    target.mkdir(exist_ok=True)
    data = open_set(directory).split("test")
    full = [row for row, scene in enumerate(data["scene"][:]) if len(parse(scene)["objects"]) >= 3]
    lines = ["picture\tcaption\tquestion\tanswer"]
    for number in range(PICTURES):
        record = data[full[number * len(full) // PICTURES]]
        name = f"{number + 1}.jpg"
        (target / name).write_bytes(record["image"])
        question = record["questions"][number % len(record["questions"])]
        caption = record["captions"][record["retrieval_caption"]]
        lines.append("\t".join([name, caption, question["question"], question["answer"]]))
    (target / "texts.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
